"""BatchNorm, LeakyReLU and circular padding as one operator, compiled from fused.cpp: training on CPU waits for memory.

Without the library, or on a GPU, the network computes the same with torch's operators.
"""

import ctypes

import torch

_library = None


def load(path):
    """Use the library at ``path`` in this process from now on, or none where ``path`` is None."""
    global _library
    _library = None if path is None else ctypes.CDLL(str(path))


def serves(x):
    """Whether the operator is there for ``x``."""
    return _library is not None and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)


def norm_activate_pad(x, norm, slope, pad):
    """``x`` (B, C, h, w) normalised over the batch by the BatchNorm ``norm``, through LeakyReLU, padded by ``pad``.

    The running statistics of ``norm`` move as they do in training.
    """
    out, mean, variance = _NormActivatePad.apply(x, norm.weight, norm.bias, norm.eps, slope, pad)
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance, norm.momentum)
        norm.num_batches_tracked += 1
    return out


class _NormActivatePad(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps, slope, pad):
        x = x.contiguous(memory_format=torch.channels_last)
        b, c, h, w = x.shape
        out = torch.empty(b, c, h + 2 * pad, w + 2 * pad, dtype=x.dtype, memory_format=torch.channels_last)
        statistics = torch.empty(3, c)
        _call("forward", x, pad, x, weight, bias, statistics, out, ctypes.c_float(slope), ctypes.c_double(eps))
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.slope, ctx.pad = slope, pad
        ctx.mark_non_differentiable(mean := statistics[0], variance := statistics[2])
        return out, mean, variance

    @staticmethod
    def backward(ctx, gradient, *_):
        """``gradient`` is overwritten: it comes fresh from the convolution behind."""
        x, weight, bias, statistics = ctx.saved_tensors
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, dparameters = torch.empty_like(x), torch.empty(2, len(weight))
        _call("backward", x, ctx.pad, gradient, x, weight, bias, statistics, dx, dparameters, ctypes.c_float(ctx.slope))
        return dx, dparameters[0], dparameters[1], None, None, None


def _call(name, x, pad, *arguments):
    b, c, h, w = x.shape
    function = getattr(_library, f"{name}_{str(x.dtype).removeprefix('torch.')}")
    function.restype = None
    pointers = (ctypes.c_void_p(one.data_ptr()) if isinstance(one, torch.Tensor) else one for one in arguments)
    function(*map(ctypes.c_int64, (b, h, w, c, pad)), *pointers)
