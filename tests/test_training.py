import contextlib
import copy

import pytest
import torch

from camelsight.inference import network, training
from conftest import global_generators_left_alone

SIZE = 16


def toy(count=240, seed=0, shuffled=False):
    """Maps whose mean level is the first parameter and whose horizontal wave has the second as amplitude."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.rand(count, 2, generator=generator)
    wave = torch.sin(torch.arange(SIZE) * 2 * torch.pi / 4).expand(SIZE, SIZE)
    maps = theta[:, 0, None, None] + theta[:, 1, None, None] * wave
    maps = (maps + 0.05 * torch.randn(count, SIZE, SIZE, generator=generator))[:, None]
    if shuffled:
        theta = theta[torch.randperm(count, generator=generator)]
    return maps, theta


def build(seed=0, channels=1):
    generator = torch.Generator().manual_seed(seed)
    return network.build(2, 0.1, size=SIZE, parameters=2, channels=channels, generator=generator)


def fit(net, train=None, valid=None, epochs=4, **changes):
    settings = {"batch": 32, "max_lr": 5e-3, "weight_decay": 1e-4, "seed": 3, "schedule": "onecycle"} | changes
    return training.fit(net, train or toy(), valid or toy(60, seed=1), epochs=epochs, **settings)


def r2(net, maps, theta):
    mean, _ = training.predict(net, maps)
    return 1 - (mean - theta).square().sum(0) / (theta - theta.mean(0)).square().sum(0)


def test_it_learns_what_can_be_learnt():
    net = build()
    fit(net, epochs=25)
    assert (r2(net, *toy(60, seed=2)) > 0.8).all()


def test_shuffled_labels_teach_nothing():
    net = build()
    fit(net, train=toy(shuffled=True), valid=toy(60, seed=1, shuffled=True), epochs=8)
    assert (r2(net, *toy(200, seed=2)) < 0.1).all()


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_seed_others():
    nets = [build() for _ in range(3)]
    histories = [fit(net, seed=seed) for net, seed in zip(nets, (3, 3, 4), strict=True)]
    assert histories[0] == histories[1] != histories[2]
    for one, two in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(nets[0].C02.weight, nets[2].C02.weight)


@pytest.mark.parametrize("schedule", ["onecycle", "cyclic"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_weights(schedule):
    whole, states = build(), []
    history = fit(whole, schedule=schedule, on_epoch=lambda state: states.append(copy.deepcopy(state)))
    resumed = build(seed=9)
    assert fit(resumed, schedule=schedule, state=states[1]) == history
    for one, two in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_the_best_epoch_is_kept():
    net, states = build(), []
    history = fit(net, epochs=6, max_lr=3e-2, on_epoch=lambda state: states.append(copy.deepcopy(state)))
    best = min(range(6), key=lambda epoch: history[epoch]["valid"])
    assert training.evaluate(net, *toy(60, seed=1)) == pytest.approx(history[best]["valid"], rel=1e-6)
    assert torch.equal(net.C02.weight, states[best]["network"]["C02.weight"])


def test_the_global_generator_is_left_alone():
    with global_generators_left_alone():
        fit(build(), epochs=1)


def test_divergence_says_when_and_what_to_try():
    with pytest.raises(training.DivergenceError, match=r"in epoch 1, from step 1 of 2 on, at .* try a smaller max_lr$"):
        fit(build(), train=(torch.full((64, 1, SIZE, SIZE), float("nan")), torch.rand(64, 2)))


@pytest.mark.parametrize("schedule", ["onecycle", "cyclic"])
def test_divergence_names_the_step_and_its_learning_rate(monkeypatch, schedule):
    """They are found afterwards: nothing is read from the device while an epoch runs."""
    rates, moments = [], training.loss.moments

    def spoilt(mean, sigma, theta):
        rates.append(optimisers[0].param_groups[0]["lr"])
        return moments(mean, sigma, theta) * (torch.nan if len(rates) == 2 * 8 + 3 else 1)

    optimisers, adam = [], torch.optim.AdamW
    monkeypatch.setattr(training.loss, "moments", spoilt)
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: optimisers.append(adam(*a, **k)) or optimisers[0])
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: 0.0)
    with pytest.raises(training.DivergenceError, match=r"in epoch 3, from step 3 of 8 on, at learning rate") as caught:
        fit(build(), schedule=schedule, precision="bfloat16")
    assert caught.value.epoch == 3 and f"learning rate {rates[2 * 8 + 2]:.2g}; try" in str(caught.value)
    assert str(caught.value).endswith("or precision float32")


def test_the_published_schedule_climbs_500_batches_and_falls_500():
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    scheduler = training._scheduler(optimiser, "cyclic", 2e-3, 0)
    rates = []
    for _ in range(1001):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates[0] == pytest.approx(1e-9) and rates[1000] == pytest.approx(1e-9)
    assert rates[500] == pytest.approx(2e-3) and rates[250] == pytest.approx(1e-3, rel=1e-3)


def test_a_last_batch_of_one_map_is_passed_over():
    """BatchNorm over one value per channel is an error in torch."""
    maps, theta = toy(33)
    assert len(fit(build(), train=(maps, theta), epochs=1)) == 1


def test_prediction_does_not_depend_on_dropout_or_on_the_batch():
    net = build()
    maps, _ = toy(150)
    mean, sigma = training.predict(net, maps)
    torch.testing.assert_close(training.predict(net, maps[140:])[0], mean[140:])
    assert mean.shape == sigma.shape == (150, 2) and torch.equal(training.predict(net, maps)[0], mean)


def test_bfloat16_leaves_r2_within_the_seed_spread():
    """The same seed in either precision differs by less than two seeds do."""
    scores = {precision: [] for precision in ("float32", "bfloat16")}
    for precision, seen in scores.items():
        for seed in range(3):
            net = build(seed)
            fit(net, epochs=10, seed=seed, precision=precision)
            seen.append(r2(net, *toy(120, seed=2)))
    reference, ours = (torch.stack(seen) for seen in scores.values())
    assert (ours.mean(0) - reference.mean(0)).abs().max() < reference.std(0).max()


@pytest.mark.parametrize(
    ("flag", "expected"), [("amx_bf16", "bfloat16"), ("avx512_bf16", "bfloat16"), ("avx512_f", "float32")]
)
def test_precision_auto_is_settled_by_the_hardware_and_a_named_one_stays(monkeypatch, flag, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True})
    names = "auto", "float32", "bfloat16"
    resolved = [training.resolve_precision(name, torch.device("cpu")) for name in names]
    assert resolved == [expected, "float32", "bfloat16"]


def test_the_optimiser_is_the_published_one():
    states = []
    fit(build(), epochs=1, weight_decay=3e-3, on_epoch=lambda state: states.append(copy.deepcopy(state)))
    group = states[0]["optimiser"]["param_groups"][0]
    assert (tuple(group["betas"]), group["weight_decay"], group["eps"]) == ((0.5, 0.999), 3e-3, 1e-8)


@pytest.fixture
def seen(monkeypatch):
    """The batches that networks are given from here on, in training (True) and in evaluation (False)."""
    seen, forward = {True: [], False: []}, training._forward

    def spy(net, maps, precision):
        seen[net.training].append(maps.detach().clone())
        return forward(net, maps, precision)

    monkeypatch.setattr(training, "_forward", spy)
    return seen


def copies(channels=1):
    """One map, 64 times over."""
    maps = torch.randn(1, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    return maps.expand(64, -1, -1, -1).contiguous(), toy(1)[1].expand(64, 2).contiguous()


@pytest.mark.parametrize("channels", [1, 2])
def test_training_sees_every_symmetry_and_validation_none(seen, channels):
    part = copies(channels)
    fit(build(channels=channels), train=part, valid=part, epochs=2)
    assert len(torch.unique(torch.cat(seen[True]), dim=0)) == 8
    assert torch.equal(torch.unique(torch.cat(seen[False]), dim=0), part[0][:1])


def test_augmentation_can_be_left_out_or_be_rotations_alone(seen):
    """The first release drew its flips with randint(0, 1), which is always 0: its maps were never mirrored."""
    part = maps, _ = copies()
    for symmetries, wanted in ((range(1), maps[:1]), (range(4), [torch.rot90(maps[0], k, (1, 2)) for k in range(4)])):
        seen[True].clear()
        fit(build(), train=part, valid=part, epochs=2, symmetries=symmetries)
        views = torch.unique(torch.cat(seen[True]), dim=0)
        assert torch.equal(views, torch.unique(torch.stack(list(wanted)), dim=0))


def test_maps_that_are_streamed_give_the_same_weights_as_resident_ones(monkeypatch):
    nets = [build(), build()]
    histories = [fit(nets[0], train=toy(75))]
    monkeypatch.setattr(training, "_resident", lambda maps, device: False)
    histories.append(fit(nets[1], train=toy(75)))
    assert histories[0] == histories[1]
    assert all(torch.equal(*pair) for pair in zip(*(net.state_dict().values() for net in nets), strict=True))


def test_streamed_batches_are_the_gathered_ones():
    maps, order = toy(75)[0], torch.randperm(75)
    for one, two in zip(training._gathered(maps, order, 32), training._streamed(maps, order, 32), strict=True):
        assert torch.equal(one, two)


def test_patience_ends_training_and_a_resumed_run_ends_there_too():
    settings = {"train": toy(64), "epochs": 30, "max_lr": 0.05, "schedule": "cyclic"}
    states = []
    history = fit(build(), patience=2, on_epoch=lambda state: states.append(copy.deepcopy(state)), **settings)
    losses = [record["valid"] for record in history]
    assert len(losses) < 30 and losses.index(min(losses)) == len(losses) - 3
    assert fit(build(), patience=2, state=states[-1], **settings) == history
    assert len(fit(build(), **settings | {"epochs": len(history) + 1})) == len(history) + 1


@pytest.mark.parametrize(("message", "said"), [("no compiler\nand more", "no compiler"), ("", "RuntimeError")])
def test_where_compiling_fails_training_goes_on_with_the_network_as_it_was(monkeypatch, capsys, message, said):
    """On a GPU alone is the network compiled; here it is played."""

    class Maps:
        device = torch.device("cuda")

    def forward(network, maps, precision):
        network.B02.running_mean += 1
        raise RuntimeError(message)

    resets = []
    net, before = build(), build().state_dict()
    monkeypatch.setattr(training, "_forward", forward)
    monkeypatch.setattr(torch._dynamo, "reset", lambda: resets.append(1))
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    assert training._compiled(net, Maps(), "float32") is net and resets
    assert all(torch.equal(*pair) for pair in zip(net.state_dict().values(), before.values(), strict=True))
    assert capsys.readouterr().err == f"torch.compile is of no use here, training goes on without: {said}\n"


def test_a_smaller_last_batch_goes_through_the_network_as_it_is(monkeypatch):
    """What is compiled is for one size; here a GPU is played by maps that say they are on one."""

    class OnGpu(torch.Tensor):
        device = torch.device("cuda")

    def compiled(network, **_):
        return lambda maps: seen.append(len(maps)) or network(maps.as_subclass(torch.Tensor))

    seen = []
    monkeypatch.setattr(torch, "compile", compiled)
    net, maps = build(), toy(32)[0]
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    monkeypatch.setattr(training, "_forward", lambda forward, maps, _: forward(maps))
    forward = training._compiled(net, maps.as_subclass(OnGpu), "float32")
    net.eval()
    outputs = [forward(maps[:size]) for size in (32, 11)]
    assert seen == [32, 32]  # the trial, and the batch as large
    assert torch.equal(outputs[1], net(maps[:11]))
