import copy
import ctypes
import platform
import re
import shutil
import subprocess

import pytest
import torch

from camelsight.analysis import networks
from camelsight.inference import fused, network, training
from camelsight.pipeline import compiled, paths

ROUNDING = {torch.float32: 3e-5, torch.bfloat16: 2e-2}  # a few units in the last place of what is stored


@pytest.fixture(autouse=True)
def library():
    path = compiled.library(paths.FUSED_SOURCE)
    if not path.exists():
        compiled.build()
    fused.load(path)
    compiled.load.cache_clear()
    yield
    fused.load(None)
    compiled.load.cache_clear()


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def plain(x, norm, pad):
    x = torch.nn.functional.leaky_relu(norm(x), network.ACTIVATION_SLOPE)
    return network._CircularPad.apply(x, pad) if pad else x


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86_64")
@pytest.mark.parametrize(("capability", "width"), [("AVX512", 64), ("AVX2", 32)])
def test_the_compiler_makes_vectors_of_every_loop_over_numbers_in_either_precision(tmp_path, capability, width):
    says = ["-fopt-info-vec-optimized", paths.FUSED_SOURCE, "-o", tmp_path / "fused.so"]
    command = [*compiled.COMMAND, *compiled.FLAGS[capability], *says]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    lines = paths.FUSED_SOURCE.read_text(encoding="utf-8").splitlines()
    loops = [number for number, line in enumerate(lines, 2) if line == "#pragma omp simd"]
    assert len(loops) == 4
    for number in loops:  # GCC names the loop or its first statement, once for each precision
        vectors = rf"fused\.cpp:({number}|{number + 1}):\d+: optimized: loop vectorized using {width} byte"
        assert len(re.findall(vectors, said)) == 2, (number, said)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("shape", [(5, 6, 16, 16), (4, 8, 64, 64), (3, 7, 4, 4), (2, 48, 8, 8), (5, 128, 1, 1)])
@pytest.mark.parametrize("pad", [0, 1])
def test_equal_to_torch_forward_backward_and_in_running_statistics(dtype, shape, pad):
    draws = torch.Generator().manual_seed(1)
    norm = torch.nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.copy_(torch.randn(shape[1], generator=draws))
        norm.bias.copy_(torch.randn(shape[1], generator=draws))
    reference = copy.deepcopy(norm)
    x = (3 * torch.randn(shape, generator=draws) + 20).to(dtype).contiguous(memory_format=torch.channels_last)
    ours, theirs = x.clone().requires_grad_(), x.float().requires_grad_()  # the reference computes in float32
    out, expected = fused.norm_activate_pad(ours, norm, network.ACTIVATION_SLOPE, pad), plain(theirs, reference, pad)
    error = ROUNDING[dtype]
    torch.testing.assert_close(out.float(), expected, rtol=error, atol=error)
    gradient = torch.randn(out.shape, generator=draws).to(dtype).contiguous(memory_format=torch.channels_last)
    expected.backward(gradient.float())
    out.backward(gradient.clone())
    torch.testing.assert_close(ours.grad.float(), theirs.grad, rtol=error, atol=error)
    for name in ("weight", "bias"):
        torch.testing.assert_close(
            getattr(norm, name).grad, getattr(reference, name).grad, rtol=error, atol=error * len(x) * shape[2]
        )
    torch.testing.assert_close(norm.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-5)


def once(dtype=torch.bfloat16):
    draws = torch.Generator().manual_seed(1)
    norm = torch.nn.BatchNorm2d(6)
    x = torch.randn(7, 6, 32, 32, generator=draws).to(dtype).contiguous(memory_format=torch.channels_last)
    out = fused.norm_activate_pad(x.requires_grad_(), norm, 0.2, 1)
    out.square().sum().backward()
    return out, x.grad, norm.weight.grad, norm.bias.grad, norm.running_var


def test_the_same_bits_again_and_with_more_threads(two_threads):
    several = [once() for _ in range(3)]
    torch.set_num_threads(1)
    for result in several:
        assert all(torch.equal(*pair) for pair in zip(result, once(), strict=True))


def train(precision):
    draws = torch.Generator().manual_seed(1)
    net = network.build(2, 0.1, size=16, parameters=2, generator=draws)
    maps, targets = torch.randn(75, 1, 16, 16, generator=draws), torch.rand(75, 2, generator=draws)
    settings = {"epochs": 2, "batch": 32, "max_lr": 1e-3, "weight_decay": 1e-4, "seed": 1, "precision": precision}
    return net, training.fit(net, (maps, targets), (maps[:15], targets[:15]), **settings)


def test_training_with_it_repeats_itself_bit_for_bit_and_differs_from_torch_by_rounding():
    (one, history), (two, again) = train("float32"), train("float32")
    assert history == again and all(map(torch.equal, one.parameters(), two.parameters()))
    fused.load(None)
    plainly = train("float32")[1]
    assert plainly != history
    assert [r["train"] for r in plainly] == pytest.approx([r["train"] for r in history], abs=0.02)


def test_only_training_on_cpu_is_served():
    x = torch.zeros(1)
    assert fused.serves(x) and fused.serves(x.bfloat16()) and not fused.serves(x.double())
    assert not fused.serves(x.to("meta"))
    fused.load(None)
    assert not fused.serves(x)


def test_where_it_was_not_built_one_line_says_so_and_torch_trains(monkeypatch, capsys, tmp_path):
    fused.load(None)
    monkeypatch.setattr(compiled, "library", lambda source: tmp_path / "fused-AVX.so")
    cpu = torch.device("cpu")
    assert networks.engine(cpu) == networks.engine(cpu) == "torch"
    assert capsys.readouterr().err == "fused-AVX.so is not built, so training takes longer; make setup builds it\n"
    assert networks.engine(torch.device("cuda")) == "torch" and not fused.serves(torch.zeros(1))


def test_one_of_another_machine_is_one_line_and_torch_trains(monkeypatch, capsys, tmp_path):
    """On a disk that machines share it may be there and not load: every training ended with a traceback."""
    fused.load(None)
    path = tmp_path / "fused-AVX.so"
    path.write_bytes(b"\x7fELF of an aarch64")
    monkeypatch.setattr(compiled, "library", lambda source: path)
    assert networks.engine(torch.device("cpu")) == "torch" and not fused.serves(torch.zeros(1))
    said = capsys.readouterr().err
    assert said.startswith("fused-AVX.so does not load here (") and said.count("\n") == 1
    assert said.endswith("so training takes longer; make setup on this machine builds it anew\n")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which the image has not")
def test_building_leaves_no_library_of_other_sources_or_flags(monkeypatch, tmp_path):
    source = tmp_path / "fused.cpp"
    source.write_text('extern "C" int answer() { return 42; }\n')
    (tmp_path / "fused-AVX2-0123456789ab.so").touch()
    monkeypatch.setattr(compiled, "SERVES", {source: "training"})
    compiled.build()
    libraries = sorted(tmp_path.glob("*.so"))
    assert not tmp_path.joinpath("fused-AVX2-0123456789ab.so").exists()
    assert all(ctypes.CDLL(str(path)).answer() == 42 for path in libraries)
    assert compiled.library(source) in libraries
