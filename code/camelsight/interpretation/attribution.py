"""Where the network looks: Saliency, Integrated Gradients and GradientShap, computed by Captum.

Attributions refer to a normalised posterior mean and to scaled maps, pixel by pixel, and are signed.
"""

import contextlib

import numpy as np
import torch
from captum import attr

METHODS = ("saliency", "integrated_gradients", "gradient_shap")
SHAP_NOISE = 0.05  # standard deviation of the noise added to scaled maps
BATCH = 256  # network evaluations at a time


def baselines(name, shape, *, count, log10_range, mean, std, generator):
    """``(count, n, n)`` scaled reference maps.

    ``mean`` is the training mean everywhere, zero in scaled space. ``noise`` is drawn log-uniformly from
    ``log10_range``, like the random fill of the density cuts; it is what the paper's site names as its baseline.
    """
    if name == "mean":
        return torch.zeros(count, *shape)
    if name == "noise":
        low, high = log10_range
        return torch.as_tensor((generator.uniform(low, high, (count, *shape)) - mean) / std, dtype=torch.float32)
    raise ValueError(f"expected baseline mean or noise, got {name!r}")


def attribute(network, maps, target, *, references, ig_steps, shap_samples, seed):
    """Attributions of output ``target`` for scaled ``maps`` ``(M, n, n)``, and how complete they are.

    Returns ``{method: (M, n, n)}`` and the completeness gap ``(M,)`` of Integrated Gradients,
    |sum IG - (f(x) - f(x'))| / |f(x) - f(x')|. Integrated Gradients starts from ``references[0]`` with ``ig_steps``
    Gauss-Legendre nodes; GradientShap draws from all ``references`` ``(K, n, n)``.
    """
    network.eval()
    x = maps[:, None].detach().clone().requires_grad_()
    start = references[:1, None].to(x)

    saliency = attr.Saliency(network).attribute(x, target=target, abs=False)
    ig, delta = attr.IntegratedGradients(network).attribute(
        x,
        start,
        target=target,
        n_steps=ig_steps,
        method="gausslegendre",
        internal_batch_size=BATCH,
        return_convergence_delta=True,
    )
    with _seeded_globals(seed):  # Captum draws GradientShap's samples from the global generators
        shap = attr.GradientShap(network).attribute(
            x, references[:, None].to(x), target=target, n_samples=shap_samples, stdevs=SHAP_NOISE
        )
    with torch.inference_mode():
        difference = network(x)[:, target] - network(start)[:, target]
    gap = delta.abs() / difference.abs()
    values = dict(zip(METHODS, (saliency, ig, shap), strict=True))
    return {name: value[:, 0].detach().float() for name, value in values.items()}, gap.detach().float()


@contextlib.contextmanager
def _seeded_globals(seed):
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
