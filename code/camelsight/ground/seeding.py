"""Every random draw starts here: a generator follows from (seed, suite, case, purpose) and from nothing else."""

import hashlib

import numpy as np
import torch


def entropy(seed, *words):
    """A 63-bit integer that depends on the run's seed and on what the draw is for."""
    text = "\x1f".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed, *words):
    return np.random.default_rng(entropy(seed, *words))


def torch_generator(seed, *words, device="cpu"):
    return torch.Generator(device=device).manual_seed(entropy(seed, *words))
