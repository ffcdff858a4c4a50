import numpy as np
import Pk_library
import pytest
import torch

from camelsight.maps import scaling, spectrum

PYLIANS_PRECISION = 1e-4  # Pylians works in float32


def density(size=64, count=3, seed=0):
    """Log-normal maps with some structure."""
    rng = np.random.default_rng(seed)
    noise = np.fft.rfft2(rng.standard_normal((count, size, size)))
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    return np.exp(np.fft.irfft2(noise / (0.05 + k), s=(size, size)) / 4).astype(np.float32)


@pytest.mark.parametrize("size", [16, 33, 64])
def test_power_is_that_of_pylians(size):
    maps = density(size)
    k, power = spectrum.power(maps)
    for field, ours in zip(maps, power, strict=True):
        theirs = Pk_library.Pk_plane(field, 25.0, "None", 1, False)
        np.testing.assert_allclose(k, theirs.k, rtol=PYLIANS_PRECISION)
        np.testing.assert_allclose(ours, theirs.Pk, rtol=PYLIANS_PRECISION)


def test_a_plane_wave_has_its_power_in_its_shell_alone():
    x = np.arange(32) / 32
    wave = 1 + 0.5 * np.cos(2 * np.pi * (3 * x[:, None] + 4 * x))  # |k| is five fundamental modes
    k, power = spectrum.power(wave[None])
    modes = 20  # half of the 40 points of the lattice from 5 to 6 away from the origin
    assert power[0, 4] == pytest.approx(0.25**2 * 25.0**2 / modes) and k[4] >= 5 * 2 * np.pi / 25.0
    assert np.delete(power[0], 4).max() < 1e-20


def test_white_noise_is_flat_and_holds_the_variance_of_a_pixel():
    noise = np.random.default_rng(0).standard_normal((64, 64, 64))
    _, power = spectrum.power(noise)
    np.testing.assert_allclose(power.mean(0)[3 : spectrum.complete(64)], (25.0 / 64) ** 2, rtol=0.1)


def test_power_is_blind_to_the_mean_and_to_the_eight_symmetries_and_quadratic():
    maps = density(count=1)
    table = scaling.symmetry_table(64)
    turned = scaling.transform(torch.from_numpy(maps).expand(8, 1, -1, -1), torch.arange(8), table)[:, 0].numpy()
    _, power = spectrum.power(turned)
    np.testing.assert_allclose(power, np.broadcast_to(power[0], power.shape), rtol=1e-5)
    np.testing.assert_allclose(spectrum.power(maps.astype(float) + 7)[1], power[:1], rtol=1e-5)
    np.testing.assert_allclose(spectrum.power(3 * maps)[1], 9 * power[:1], rtol=1e-5)


def test_the_complete_shells_end_below_nyquist():
    for size in (16, 64):
        k, _ = spectrum.power(density(size, 1))
        assert k[spectrum.complete(size) - 1] < np.pi * size / 25.0


def test_a_tensor_gives_a_tensor():
    maps = density(count=2)
    _, power = spectrum.power(torch.from_numpy(maps))
    assert isinstance(power, torch.Tensor)
    np.testing.assert_array_equal(power, spectrum.power(maps)[1])


def test_histogram_by_hand():
    maps = np.array([[[1.0, 10.0], [100.0, 1e6]], [[1e-5, 1.0], [3.0, 20.0]]], dtype=np.float32)
    np.testing.assert_array_equal(
        spectrum.histogram(maps, [0.0, 1.0, 2.0, 3.0]), [[0.25, 0.25, 0.5], [0.75, 0.25, 0.0]]
    )
