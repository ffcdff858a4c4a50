import numpy as np
import pytest

from camelsight.interpretation import probes

POWER_KEPT = 1e-5  # of a bin of P(k); maps come back as float32


def densities(n=4, size=32, seed=1):
    """Log-normal maps with structure, as skewed as the real ones."""
    noise = np.random.default_rng(seed).standard_normal((n, size, size))
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    smooth = np.fft.irfft2(np.fft.rfft2(noise) / (k + 1 / size), s=(size, size))
    return (1e11 * np.exp(1.2 * smooth / smooth.std())).astype(np.float32)


def power(maps):
    """Binned |modes|^2, ``(N, B)``, the mean included."""
    maps = np.asarray(maps, dtype=np.float64)
    size = maps.shape[-1]
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    bins = k.astype(int).reshape(-1)
    modes = np.abs(np.fft.fft2(maps)).reshape(len(maps), -1) ** 2
    return np.array([np.bincount(bins, one) for one in modes])


def phases(maps):
    return np.angle(np.fft.rfft2(np.asarray(maps, dtype=np.float64)))[:, 1:-1, 1:-1]


@pytest.mark.parametrize("size", [16, 32])
def test_random_phases_keep_the_power_and_lose_the_phases(size):
    maps = densities(size=size)
    out = probes.phases_randomised(maps, np.random.default_rng(2))
    np.testing.assert_allclose(power(out), power(maps), rtol=POWER_KEPT)
    np.testing.assert_allclose(out.mean((1, 2)), maps.mean((1, 2)), rtol=1e-6)
    left = np.abs(np.exp(1j * (phases(out) - phases(maps))).mean())
    assert left < 4 / np.sqrt(phases(maps).size), "the phases of before shine through"
    assert np.abs(np.corrcoef(out.ravel(), maps.ravel())[0, 1]) < 0.2
    assert (out < 0).any(), "a field this skewed cannot keep its power and stay positive with random phases"


def test_random_phases_of_the_logarithm_stay_above_zero():
    maps = densities()
    out = probes.log_phases_randomised(maps, np.random.default_rng(2))
    assert (out > 0).all()
    before, after = (power(np.log10(np.float64(values)))[:, 1:] for values in (maps, out))
    np.testing.assert_allclose(after, before, rtol=POWER_KEPT)


def test_a_gaussian_logarithm_keeps_ranks_mean_and_scatter():
    maps = densities()
    log_in, log_out = (np.log10(np.float64(values)) for values in (maps, probes.gaussianised(maps)))
    for before, after in zip(log_in.reshape(len(maps), -1), log_out.reshape(len(maps), -1), strict=True):
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
        standard = (after - after.mean()) / after.std()
        assert abs(np.mean(standard**3)) < 1e-3 and abs(np.mean(standard**4) - 3) < 0.1
    np.testing.assert_allclose(log_out.mean((1, 2)), log_in.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(log_out.std((1, 2)), log_in.std((1, 2)), rtol=1e-4)


def test_ties_get_different_values_so_that_the_distribution_is_gaussian_all_the_same():
    clamped = np.maximum(densities(), 1e11)
    out = np.log10(probes.gaussianised(clamped))
    assert all(len(np.unique(one)) > 0.95 * one.size for one in out)


def test_shuffled_maps_have_the_same_pixels_elsewhere():
    maps = densities()
    out = probes.shuffled(maps, np.random.default_rng(3))
    np.testing.assert_array_equal(np.sort(out.reshape(4, -1)), np.sort(maps.reshape(4, -1)))
    assert (out != maps).mean() > 0.9 and out.dtype == maps.dtype
    again = probes.shuffled(maps, np.random.default_rng(3))
    np.testing.assert_array_equal(out, again)


def test_mean_only_maps_are_flat():
    maps = densities()
    out = probes.mean_only(maps)
    assert out.shape == maps.shape and (np.ptp(out, axis=(1, 2)) == 0).all()
    np.testing.assert_allclose(out[:, 0, 0], maps.mean((1, 2)), rtol=1e-6)


def test_the_regression_finds_a_line_in_the_logarithm():
    means = np.array([1e10, 1e11, 1e12])
    truth = np.stack([0.1 * np.log10(means), 3 - 2 * np.log10(means)], axis=1)
    mean, scatter = probes.regression(means, truth, np.array([10**10.5]))
    np.testing.assert_allclose(mean, [[1.05, -18]], rtol=1e-9)
    np.testing.assert_allclose(scatter, 0, atol=1e-9)
