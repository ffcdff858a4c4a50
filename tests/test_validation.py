import numpy as np
import pytest
import torch

from camelsight.ground import cmd
from camelsight.universe import nbody, validation

PARTICLES = 32
HALF_NYQUIST = np.pi * PARTICLES / cmd.BOX / 2
CONVERGED = 0.10  # up to half the particles' Nyquist wave number; as the force resolution asks


@pytest.fixture(scope="module")
def finer():
    return spectrum(mesh=112, steps=4 * nbody.default_steps(PARTICLES))


def spectrum(**settings):
    """Of two universes: in one, orbits that diverge move a shell of few modes by a tenth."""
    runs = [nbody.evolve(0.3, 0.8, seed=seed, particles=PARTICLES, **settings) for seed in (2, 3)]
    k, power = zip(*(validation.spectrum([(positions, None)], PARTICLES) for positions in runs), strict=True)
    return k[0], np.mean(power, axis=0)


def test_power_is_that_of_four_times_the_steps_and_twice_the_mesh(finer):
    k, power = spectrum(mesh=56)
    assert np.abs(power / finer[1] - 1)[k <= HALF_NYQUIST].max() < CONVERGED


def test_the_comparison_sees_a_coarse_mesh(finer):
    k, power = spectrum(mesh=24)
    assert validation.resolved(k, power, finer[1], CONVERGED) < HALF_NYQUIST


def test_spectrum_of_random_particles_is_their_shot_noise():
    positions = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) * cmd.BOX
    k, power = validation.spectrum([(positions, None)], 16)
    assert power[5:30].mean() == pytest.approx(cmd.BOX**3 / 20_000, rel=0.03)
    assert 15 < k[-1] < 17


def test_weights_are_masses():
    positions = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) * cmd.BOX
    parts = [(positions, torch.full((2000,), share)) for share in (0.3, 0.7)]
    np.testing.assert_allclose(validation.spectrum(parts, 16)[1], validation.spectrum([(positions, None)], 16)[1], 1e-4)


def test_resolution_ends_at_the_first_wave_number_that_is_off():
    k = np.array([1.0, 2.0, 3.0, 4.0])
    assert validation.resolved(k, np.array([1.0, 1.05, 0.8, 1.0]), np.ones(4)) == 3
    assert validation.resolved(k, np.array([1.0, 1.05, 0.95, 1.0]), np.ones(4)) == 4


def test_pixel_statistics_in_chunks_are_those_of_all_pixels():
    maps = np.exp(np.random.default_rng(0).normal(27, 1, (10, 8, 8))).astype(np.float32)
    found, values = validation.pixel_statistics(maps, chunk=3), maps.astype(np.float64)
    assert (found["min"], found["max"]) == (values.min(), values.max())
    expected = [values.mean(), values.std(), np.log10(values).mean(), np.log10(values).std()]
    np.testing.assert_allclose(
        [found[name] for name in ("mean", "std", "log10_mean", "log10_std")], expected, rtol=1e-9
    )


def test_statistics_of_a_field_with_empty_pixels_take_its_offset():
    maps = np.exp(np.random.default_rng(0).normal(20, 1, (10, 8, 8))).astype(np.float32)
    maps[3] = 0
    found, log = validation.pixel_statistics(maps, 1.0, chunk=3), np.log10(maps.astype(np.float64) + 1)
    np.testing.assert_allclose([found["log10_mean"], found["log10_std"]], [log.mean(), log.std()], rtol=1e-9)
    assert found["min"] == 0


def test_agreement_of_a_map_with_itself_with_half_of_it_and_with_another():
    rng = np.random.default_rng(1)
    ours, other = rng.normal(size=(2, 64, 64))
    k, correlation, power = validation.agreement(ours, ours / 2 + 3)
    assert k[0] == pytest.approx(2 * np.pi / 25 * 1.1, rel=0.1) and len(k) == 31
    np.testing.assert_allclose(correlation, 1)
    np.testing.assert_allclose(power, 4)
    assert np.abs(validation.agreement(ours, other)[1][5:]).max() < 0.4


def test_means_by_scale_take_each_limit_once_and_are_none_where_nothing_is():
    means = validation.by_scale([0.5, 0.9, 1.0, 1.4, 1.5], [1, 3, 5, 7, 100])
    assert means[:2] == [2, 6] and np.isnan(means[2])
