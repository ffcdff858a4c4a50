import copy

import pytest
import torch

from camelsight import compiled
from camelsight.inference import fused, network

ROUNDING = {torch.float32: 3e-5, torch.bfloat16: 2e-2}  # a few units in the last place of what is stored


@pytest.fixture(autouse=True)
def library():
    if not compiled.library().exists():
        compiled.build()
    fused.load(compiled.library())
    yield
    fused.load(None)


def plain(x, norm, pad):
    x = torch.nn.functional.leaky_relu(norm(x), network.ACTIVATION_SLOPE)
    return network._CircularPad.apply(x, pad) if pad else x


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
