import math

import numpy as np
import Pk_library
import pytest
import torch

from camelsight.universe import mesh as grids
from camelsight.universe import nbody

BOX = 25.0
ROUNDING = 1e-5  # relative, of float32 sums over a few thousand particles


def random_positions(n, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) * BOX


def test_particle_on_a_node_fills_that_cell_alone():
    field = grids.paint(torch.tensor([[3.0, 0.0, 7.0]]) * BOX / 8, 8, BOX)
    assert field[3, 0, 7] == 1
    assert field.sum() == 1


def test_particle_between_nodes_is_shared_across_the_edge():
    field = grids.paint(torch.tensor([[7.25, 2.0, 2.0]]) * BOX / 8, 8, BOX)
    assert field[7, 2, 2] == pytest.approx(0.75)
    assert field[0, 2, 2] == pytest.approx(0.25)


@pytest.mark.parametrize("mesh", [7, 16])
def test_mass_is_conserved_in_any_image_of_the_box(mesh):
    positions = random_positions(4000) * 3 - BOX
    weights = torch.rand(4000, generator=torch.Generator().manual_seed(1))
    painted = grids.paint(positions, mesh, BOX, weights).sum(dtype=torch.float64)
    assert painted.item() == pytest.approx(weights.double().sum().item(), rel=ROUNDING)


def test_reading_is_the_transpose_of_painting():
    positions = random_positions(500)
    weights, field = torch.rand(500), torch.rand(8, 8, 8)
    painted = (grids.paint(positions, 8, BOX, weights) * field).sum()
    assert painted.item() == pytest.approx((grids.read(field[None], positions, BOX)[:, 0] * weights).sum().item(), 1e-5)


def test_linear_field_is_read_exactly_away_from_the_edge():
    index = torch.arange(16.0).view(16, 1, 1).expand(16, 16, 16)
    positions = random_positions(300) * 0.9
    np.testing.assert_allclose(grids.read(index[None], positions, BOX)[:, 0], positions[:, 0] * 16 / BOX, atol=1e-4)


def test_both_gradients_know_the_derivative_of_a_wave():
    k = 2 * np.pi / BOX
    x = torch.arange(32) * BOX / 32
    wave = torch.sin(k * x)[None, :, None].expand(32, 32, 32)
    expected = (k * torch.cos(k * x))[None, :, None].expand(32, 32, 32)
    spectral = grids.spectral_gradient(torch.fft.rfftn(wave), grids.wavenumbers(32, BOX), 32)
    for slope, tolerance in ((spectral, 1e-5), (torch.stack([*grids.gradient(wave.contiguous(), BOX)]), 1e-4)):
        np.testing.assert_allclose(slope[1], expected, atol=tolerance)
        np.testing.assert_allclose(slope[[0, 2]], 0, atol=1e-5)


def test_inverse_laplacian_leaves_out_nyquist_modes():
    """With the Nyquist component of k set to zero instead, these modes once got forces as if they were large waves."""
    green = grids.inverse_laplacian(grids.wavenumbers(8, BOX))
    assert not green[4].any() and not green[:, 4].any() and not green[..., 4].any()
    assert green[0, 0, 1] == pytest.approx(-((BOX / (2 * np.pi)) ** 2))


def test_momentum_is_conserved_to_rounding():
    positions = random_positions(4096)
    force = nbody.acceleration(positions, nbody.force_kernel(16))
    assert force.sum(dim=0).abs().max() < ROUNDING * force.abs().sum(dim=0).min()


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_two_particles_attract_each_other_as_newton_says(offset):
    positions = torch.tensor([[10.0, 12.5, 12.5], [15.0, 12.5, 12.5]]) + offset
    force = nbody.acceleration(positions, nbody.force_kernel(64))
    np.testing.assert_allclose(force[0], -force[1], atol=1e-4 * force.abs().max().item())
    newton = BOX**3 / 2 / (4 * np.pi * 5**2)
    periodic_images = 5 / 3 * 0.5  # the uniform background within a sphere of that radius
    assert force[0, 0] == pytest.approx(newton - periodic_images, rel=0.15)


def test_smoothing_keeps_the_mean_and_damps_a_wave_by_its_gaussian():
    k = 2 * np.pi / BOX * 2
    x = torch.arange(16) * BOX / 16
    wave = 1 + torch.cos(k * x)[:, None, None].expand(16, 16, 16)
    smoothed = grids.smooth(wave, 1.5, BOX)
    np.testing.assert_allclose(smoothed, 1 + (wave - 1) * math.exp(-0.5 * (k * 1.5) ** 2), atol=1e-5)


def test_nearest_takes_the_next_node_over_the_edge():
    field = torch.arange(64.0).view(4, 4, 4)
    positions = torch.tensor([[24.9, 6.0, 13.0]]).T
    assert grids.nearest(field, positions, BOX) == field[0, 1, 2]


def test_spectrum_of_a_plane_wave_sits_in_one_shell():
    x = torch.arange(16) * BOX / 16
    field = 1 + 0.1 * torch.cos(2 * np.pi / BOX * 3 * x)[None, None, :].expand(16, 16, 16)
    k, power = grids.power_spectrum(field, BOX, 8)
    index = torch.fft.fftfreq(16, 1 / 16)
    radius = sum(axis**2 for axis in torch.meshgrid(index, index, index, indexing="ij")).sqrt()
    modes = (radius.int() == 3).sum().item()
    assert power[2] == pytest.approx(2 * 0.05**2 * BOX**3 / modes, rel=1e-5)
    np.testing.assert_allclose(np.delete(power, 2), 0, atol=1e-8)
    assert 3 < k[2] * BOX / (2 * np.pi) < 4


def test_shot_noise_of_random_particles_is_the_volume_per_particle():
    n = 20_000
    _, power = grids.power_spectrum(grids.paint(random_positions(n), 64, BOX), BOX, 8)
    assert power[3:].mean() == pytest.approx(BOX**3 / n, rel=0.1)  # a few hundred modes, and the CIC window


def test_spectrum_is_that_of_pylians():
    field = grids.paint(random_positions(2000), 32, BOX)
    k, power = grids.power_spectrum(field, BOX, 15, clouds=1)
    theirs = Pk_library.Pk((field / field.mean() - 1).numpy(), BOX, 0, "CIC", 1, False)
    np.testing.assert_allclose(k, theirs.k3D[:15], rtol=ROUNDING)
    np.testing.assert_allclose(power, theirs.Pk[:15, 0], rtol=1e-4)
