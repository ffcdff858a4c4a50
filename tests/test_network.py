import random
import zipfile

import pytest
import torch
from torch.nn import functional

from camelsight.analysis import networks
from camelsight.inference import network
from conftest import global_generators_left_alone, refused

PUBLISHED_COUNTS = {
    6: 8_466_876, 7: 11_521_592, 8: 15_045_900, 9: 19_039_800, 10: 23_503_292, 11: 28_436_376, 12: 33_839_052,
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("hidden", "count"), PUBLISHED_COUNTS.items())
def test_parameter_counts_are_the_published_ones(hidden, count):
    with torch.device("meta"):
        assert network.count_parameters(network.O3(hidden, 0.1, size=256, parameters=6, channels=1)) == count


class Released(torch.nn.Module):
    """The released network as its checkpoints name it, in plain torch modules, for any number of blocks and fields."""

    def __init__(self, hidden, blocks=6, channels=1):
        super().__init__()
        self.blocks, width = blocks, channels
        for block in range(blocks):
            following = 2 ** (block + 1) * hidden
            self.add(f"{block}1", width, following, kernel_size=3, padding=1)
            self.add(f"{block}2", following, following, kernel_size=3, padding=1)
            self.add(f"{block}3", following, following, kernel_size=2, stride=2)
            width = following
        self.add(f"{blocks}1", width, 2 * width, kernel_size=4)
        self.FC1, self.FC2 = torch.nn.Linear(2 * width, width), torch.nn.Linear(width, 12)

    def add(self, name, previous, width, **options):
        self.add_module(f"C{name}", torch.nn.Conv2d(previous, width, padding_mode="circular", **options))
        self.add_module(f"B{name}", torch.nn.BatchNorm2d(width))

    def forward(self, x):
        for name in [f"{block}{n}" for block in range(self.blocks) for n in (1, 2, 3)] + [f"{self.blocks}1"]:
            x = getattr(self, f"C{name}")(x)
            x = functional.leaky_relu(x if name == "01" else getattr(self, f"B{name}")(x), 0.2)
        x = self.FC2(functional.leaky_relu(self.FC1(x.flatten(1)), 0.2))
        return torch.cat([x[:, :6], x[:, 6:] ** 2], dim=1)


@pytest.fixture(params=["cpu", "gpu"])
def written_for(request, monkeypatch):
    """The network has expressions of its own for a GPU, which give the same."""
    monkeypatch.setattr(network, "_compiles", lambda x: request.param == "gpu")


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 1), (64, 1), (16, 2), (16, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients_equal_the_released_forward_pass(size, channels, training, written_for):
    net = network.build(2, 0.0, size=size, channels=channels, generator=generator()).double().train(training)
    plain = Released(2, net.n_blocks, channels).double().train(training)
    plain.load_state_dict(net.state_dict())
    draws = generator(1)
    first = torch.rand(8, channels, size, size, dtype=torch.float64, generator=draws).requires_grad_()
    second = first.detach().clone().requires_grad_()
    ours, theirs = net(first), plain(second)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-6)
    weights = torch.rand(ours.shape, generator=draws)
    for outputs in (ours, theirs):
        (outputs * weights).sum().backward()
    ours, theirs = (
        {name: one.grad for name, one in either.named_parameters() if one.grad is not None} for either in (net, plain)
    )
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-4, atol=1e-6)  # the last layer is float32
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [1, 2])
def test_the_gradient_of_circular_padding_is_right(width, written_for):
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64, generator=generator()).requires_grad_()
    padded = network._CircularPad.apply(x, width)
    torch.testing.assert_close(padded, functional.pad(x, (width,) * 4, mode="circular"))
    assert torch.autograd.gradcheck(lambda x: network._CircularPad.apply(x, width), x)


def test_channels_that_fill_a_tensor_core_change_nothing_and_lie_as_a_gpu_reads_them(monkeypatch):
    x = torch.randn(4, 5, 9, 9, generator=generator()).contiguous(memory_format=torch.channels_last)
    layer, seen = network._Convolution(5, 11, 3), []
    convolve = functional.conv2d

    def watched(maps, weight, *more):
        out = convolve(maps, weight, *more)
        out.register_hook(seen.append)
        seen.append(maps)
        return out

    monkeypatch.setattr(functional, "conv2d", watched)
    monkeypatch.setattr(network, "_compiles", lambda x: True)
    expected = convolve(x, layer.weight, layer.bias)
    expected.square().sum().backward()
    gradients = [layer.weight.grad.clone(), layer.bias.grad.clone()]
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    out.float().square().sum().backward()
    assert [tensor.shape[1] for tensor in seen] == [8, 16]  # the maps, and the gradient
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02)
    for got, wanted in zip([layer.weight.grad, layer.bias.grad], gradients, strict=True):
        assert ((got - wanted).norm() / wanted.norm()).item() < 0.02


def test_standard_deviations_are_never_negative():
    net = network.build(2, 0.0, size=16, generator=generator()).eval()
    out = net(torch.randn(50, 1, 16, 16, generator=generator(1)))
    assert (out[:, 6:] >= 0).all() and (out[:, :6] < 0).any()


def test_a_periodic_shift_by_whole_blocks_only_shifts_what_the_dense_layers_see():
    """Circular padding knows no border: shifted by the 16 pixels that one last cell covers, cells swap places."""
    net = network.build(2, 0.0, size=64, generator=generator()).eval()
    seen = []
    net.get_submodule("C41").register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(1, 1, 64, 64, generator=generator(1))
    net(x)
    net(torch.roll(x, (16, 32), (2, 3)))
    torch.testing.assert_close(torch.roll(seen[0], (1, 2), (2, 3)), seen[1], rtol=1e-4, atol=1e-5)


def test_the_same_generator_seed_gives_the_same_weights_and_the_global_one_is_left_alone():
    with global_generators_left_alone():
        one, two, other = (network.build(2, 0.1, size=16, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.C02.weight, two.C02.weight) and not torch.equal(one.C02.weight, other.C02.weight)


def test_the_description_follows_the_network():
    layers = network.build(4, 0.1, size=64).describe()
    assert layers[0] == ("input", 1, 64, "input") and layers[1] == ("block 1", 8, 32, "conv")
    assert layers[4] == ("block 4", 64, 4, "conv") and layers[-1] == ("output", 12, 1, "output")


@pytest.mark.parametrize("size", [8, 100, 0, 1024])
def test_a_size_that_does_not_halve_is_refused(size):
    with refused(f"got {size}"):
        network.build(2, 0.1, size=size)


@pytest.mark.parametrize("architecture", network.ARCHITECTURES)
@pytest.mark.parametrize("size", network.SIZES)
def test_every_size_gives_means_and_standard_deviations(architecture, size):
    net = network.build(1, 0.0, size=size, parameters=2, architecture=architecture, channels=3, generator=generator())
    out = net.eval()(torch.randn(2, 3, size, size, generator=generator(1)))
    assert out.shape == (2, 4) and out.dtype == torch.float32 and (out[:, 2:] >= 0).all()


def test_the_strided_network_is_the_released_one_on_64_pixels():
    """Five convolutions k4 s2 p1 with zeros beyond the edge, all but the first normalised, and one dense layer."""
    net = network.build(2, 0.0, size=64, parameters=1, architecture="strided", generator=generator()).eval()
    x = first = torch.randn(3, 1, 64, 64, generator=generator(1))
    for block in range(1, 6):
        x = functional.conv2d(x, *net.get_submodule(f"C0{block}").parameters(), stride=2, padding=1)
        x = functional.leaky_relu(x if block == 1 else net.get_submodule(f"B0{block}")(x), 0.2)
    assert x.shape == (3, 64, 2, 2)
    x = net.FC1(x.flatten(1))
    torch.testing.assert_close(net(first), torch.cat([x[:, :1], x[:, 1:] ** 2], dim=1))
    names = {name.split(".")[0] for name in net.state_dict()}
    assert names == {*(f"C0{n}" for n in range(1, 6)), *(f"B0{n}" for n in range(2, 6)), "FC1"}


@pytest.fixture
def released():
    """A small released network whose BatchNorm has seen data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = Released(3, blocks=2)
        net(torch.randn(16, 1, 16, 16) + 1)
        return net.eval()


@pytest.fixture
def checkpoint(released, tmp_path):
    """The file of that network."""
    torch.save(released.state_dict(), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def load(content, folder):
    """What is read of a checkpoint with that content."""
    torch.save(content, folder / "weights.pt")
    return networks.load_published(folder / "weights.pt")


def assert_same_outputs(net, released):
    x = torch.randn(5, 1, 16, 16, generator=generator(1))
    torch.testing.assert_close(net(x), released(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("parallel", [False, True])
def test_a_released_checkpoint_loads_and_gives_the_same_outputs(released, parallel, tmp_path):
    net = load((torch.nn.DataParallel(released) if parallel else released).state_dict(), tmp_path)
    assert (net.hidden, net.size, net.n_parameters, net.channels, net.training) == (3, 16, 6, 1, False)
    assert_same_outputs(net, released)
    assert net(torch.randn(5, 1, 16, 16, generator=generator(1))).std() > 0.01


@pytest.mark.parametrize("architecture", network.ARCHITECTURES)
def test_architecture_and_shape_follow_from_the_tensors(architecture, tmp_path):
    net = network.build(2, 0.3, size=64, parameters=2, architecture=architecture, channels=2, generator=generator())
    loaded = load(net.eval().state_dict(), tmp_path)
    x = torch.randn(2, 2, 64, 64, generator=generator(1))
    assert type(loaded) is type(net) and torch.equal(loaded(x), net(x))


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [b"", b"\x80\x04not a checkpoint"])
def test_a_file_of_other_bytes_is_said_to_be_no_checkpoint(content, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    with refused(r"expected a .* in .*weights\.pt, got"):
        networks.load_published(tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], {"C01.weight": torch.zeros(2)}, Evil()])
def test_a_file_that_holds_no_network_gets_one_line_and_runs_nothing(content, tmp_path, capsys):
    with refused(r"expected a .* in .*weights\.pt, got"):
        load(content, tmp_path)
    assert "executed" not in capsys.readouterr().out


KEY, SHAPE = "C12.weight", r"\(12, 12, 3, 3\)"
NOT_FINITE = r"expected finite weights in .*weights\.pt, got NaN or infinity in C12\.weight"
MUCH = torch.ones(10**6).as_strided((10**6, 1, 3, 3), (1, 0, 0, 0))  # more memory than there is, if it were copied
KINDS = {
    "sparse_coo": lambda x: x.contiguous().to_sparse(),
    "sparse_csr": lambda x: x.reshape(len(x), -1).to_sparse_csr(),
    "of the type complex64": lambda x: x + 1j,
    "of the type float8_e4m3fn": lambda x: x.contiguous().to(torch.float8_e4m3fn),
    "of the type qint8": lambda x: torch.quantize_per_tensor(x.contiguous(), 0.1, 0, torch.qint8),
    "of the type bool": lambda x: x > 0,
    "on the device meta": lambda x: x.to("meta"),
    "nested": lambda x: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    r"of the shape \(12, 12, 3, 3\) without as many numbers": lambda x: torch.ones(1).expand(x.shape),
}


@pytest.mark.filterwarnings("ignore")  # torch says of some kinds that it will drop them, or is not done with them
@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_is_no_plain_array_is_named_with_its_kind(kind, released, tmp_path):
    """Complex weights lost their imaginary part without a word; the others ended in tracebacks."""
    state = released.state_dict()
    with refused(rf"numbers in .*weights\.pt, got C12\.weight, which is {kind}$"):
        load(state | {KEY: KINDS[kind](state[KEY])}, tmp_path)


def prefixed(prefix):
    return lambda state: {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state | {KEY: state[KEY].long()}, rf"C12\.weight should be {SHAPE} float32 and is .* int64"),
        (lambda state: state | {KEY: state[KEY][:2]}, rf"should be {SHAPE} float32 and is \(2, 12, 3, 3\) float32"),
        (lambda state: state | {"FC2.weight": torch.ones(10**6, 1)}, r"FC2\.weight should be \(1000000, 12\) float32"),
        (
            prefixed("encoder."),
            r"got 53 tensors \(encoder\.C01\.weight, .*\) that do not fit one: C01\.weight is missing",
        ),
        (lambda state: {"model": state, "ema": state}, "got 2 of them: model, ema; save one of them alone"),
        (lambda state: {"epoch": 3, "loss": -9.0}, "got a dict with the keys epoch, loss"),
        (lambda state: {"a": {"b": state}}, "got a dict with the keys a"),
        (lambda state: state | {"FC3.bias": torch.ones(2)}, "that do not fit one: FC3.bias is unknown"),
        (lambda state: {key: state[key] for key in state if key != KEY}, "do not fit one: C12.weight is missing"),
        (lambda state: state | {"module." + KEY: state[KEY]}, "got the same name twice, with a prefix and without"),
        (lambda state: state | {("a", "b"): state[KEY]}, "got names that are no text"),
        (lambda state: state | {"B12.running_var": -state["B12.running_var"]}, "B12.running_var holds a variance of -"),
        (lambda state: state | {KEY: state[KEY].double() * 1e300}, NOT_FINITE),
        (lambda state: state | {KEY: torch.where(state[KEY] > 0, state[KEY], torch.nan)}, NOT_FINITE),
        (lambda state: state | {"C01.weight": MUCH}, r"got C01\.weight, which .* \(1000000, 1, 3, 3\) without as many"),
        (lambda state: {key: state[key] for key in state if key != "C12.bias"}, r"expected a .* in .*weights\.pt, got"),
    ],
)
def test_tensors_that_fit_no_network_are_refused_by_the_first_that_does_not(change, message, released, tmp_path):
    with refused(message):
        load(change(dict(released.state_dict())), tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (prefixed("module."), "removed the prefix module."),
        (prefixed("_orig_mod.module."), "removed the prefix _orig_mod.module."),
        (prefixed("module.module._orig_mod.net.backbone.model.network."), "removed the prefix module.module._orig"),
        (lambda state: {"n_averaged": torch.tensor(7)} | prefixed("module.")(state), "left out n_averaged"),
        (lambda state: {"state_dict": prefixed("model.")(state), "epoch": 3}, "took 'state_dict' from the keys state_"),
        (lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, "took 'model' from the"),
        (lambda state: {"epoch": 3, "model_state_dict": state, "loss": torch.ones(1)}, "took 'model_state_dict' from"),
        (lambda state: {"my network": state}, "took 'my network' from the keys my network"),
        (lambda state: state, ""),
        (lambda state: {key: value.double() for key, value in state.items()}, ""),
        (lambda state: {key: state[key] for key in state if "num_batches" not in key}, ""),  # torch before 0.4.1
    ],
)
def test_what_wrappers_and_scripts_put_around_a_network_is_taken_off_and_said(change, said, released, tmp_path, capsys):
    assert_same_outputs(load(change(released.state_dict()), tmp_path), released)
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == bool(said)


def test_an_average_of_weights_is_read_as_torch_saves_it(released, tmp_path):
    loaded = load(torch.optim.swa_utils.AveragedModel(released).state_dict(), tmp_path).state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in released.state_dict().items())


def test_a_changed_byte_is_noticed_or_changes_nothing(released, checkpoint):
    """Torch does not read the checksums of its own files: a checkpoint with one flipped byte was used."""
    good, draws, noticed = checkpoint.read_bytes(), random.Random(1), 0
    for _ in range(200):
        data = bytearray(good)
        data[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        checkpoint.write_bytes(data)
        try:
            state = networks.load_published(checkpoint).state_dict()
        except ValueError as error:
            assert "\n" not in str(error)
            noticed += 1
        else:
            assert all(torch.equal(value, state[key]) for key, value in released.state_dict().items())
    assert noticed > 100


def test_a_flipped_byte_of_a_weight_is_said_by_its_checksum(released, checkpoint):
    data = bytearray(checkpoint.read_bytes())
    data[data.index(released.C12.weight.detach().numpy().tobytes()) + 5] ^= 1
    checkpoint.write_bytes(data)
    with refused(r"one in which 'weights/data/\d+' differs from its checksum; copy it again"):
        networks.load_published(checkpoint)


@pytest.mark.parametrize("length", [4, 100, 10_000, -1])
def test_a_checkpoint_that_is_cut_short_is_said_to_be(length, checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with refused(r"got [\d,]+ bytes without the end: it is cut short; copy it again"):
        networks.load_published(checkpoint)


def test_a_checkpoint_larger_than_any_is_not_read(tmp_path):
    with open(tmp_path / "weights.pt", "wb") as file:
        file.truncate(1 << 40)
    with refused("expected a checkpoint of at most 4,294,967,296 bytes, got 1,099,511,627,776"):
        networks.load_published(tmp_path / "weights.pt")


def test_a_compressed_checkpoint_is_refused_before_it_fills_the_memory(checkpoint, tmp_path):
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(checkpoint) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights/data/more", bytes(10**7))
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    with refused("got members that overlap or are compressed"):
        networks.load_published(path)


def test_weights_start_kaiming_normal_and_batchnorm_at_one_and_zero():
    net = network.build(8, 0.1, size=64, generator=generator())
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
        elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.weight.numel() > 5000:
            weight, fan_in = module.weight.detach(), module.weight[0].numel()
            assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05), name
            assert weight.abs().max() > 3 * weight.std(), f"{name} is not normal"


def test_dropout_acts_before_each_dense_layer():
    net = network.build(2, 0.5, size=16, generator=generator()).train()
    seen = {}
    for name in ("FC1", "FC2"):
        net.get_submodule(name).register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    net(torch.randn(64, 1, 16, 16, generator=generator(1)))
    assert all((x == 0).float().mean() == pytest.approx(0.5, abs=0.1) for x in seen.values())


def test_without_a_generator_every_network_is_another():
    torch.manual_seed(5)
    one, two = network.build(2, 0.1, size=16), network.build(2, 0.1, size=16)
    assert not torch.equal(one.C02.weight, two.C02.weight)


def test_batchnorm_sees_the_whole_batch():
    """The released training dealt a batch over three GPUs, and normalised each part by itself."""
    net = network.build(2, 0.0, size=16, generator=generator()).train()
    x, seen = torch.randn(9, 1, 16, 16, generator=generator(1)), []
    net.C02.register_forward_hook(lambda module, inputs, output: seen.append(output))
    net(x)
    torch.testing.assert_close(net.B02.running_mean, 0.1 * seen[0].mean((0, 2, 3)))
