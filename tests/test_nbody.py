import numpy as np
import pytest
import torch

from camelsight.universe import linear, nbody
from camelsight.universe import mesh as grids

BOX = nbody.BOX
LINEAR = 0.01  # growth of the largest modes
ROUNDING = 2e-3  # Mpc/h; float32 through 24 steps, in places where orbits diverge


def apart(a, b):
    """Largest distance between positions, Mpc/h, by the nearer way around the box."""
    step = a - b
    return (step - BOX * torch.round(step / BOX)).abs().max().item()


def field(positions, shape):
    return positions.view(*shape, 3)


@pytest.mark.parametrize("steps", [1, 24])
@pytest.mark.parametrize("omega_m", [0.1, 0.5])
def test_largest_modes_grow_linearly_for_any_number_of_steps(omega_m, steps):
    """The odd part in the initial field, which has no second order, against the displacement of linear theory."""
    contrast_k = nbody.linear_contrast(omega_m, 0.8, seed=5, particles=32) * 1e-3
    plus, minus = (
        nbody.evolve_contrast(sign * contrast_k, omega_m, steps=steps) - nbody.lattice(32) for sign in (1, -1)
    )
    grown, expected = (
        torch.fft.rfftn(field(moved, (32,) * 3), dim=(0, 1, 2))[:2, :2, :2].flatten()
        for moved in ((plus - minus) / 2, nbody.displacements(contrast_k)[0])
    )
    growth = (grown * expected.conj()).sum().real / expected.abs().square().sum()
    assert abs(growth - 1) < LINEAR


@pytest.mark.parametrize("steps", [1, 3, 24])
def test_integrator_is_exact_in_second_order(steps):
    """Fed with the acceleration D1 psi1 + (D2 - D1^2) psi2 of its own path, it ends at the D1 and D2 of the theory."""
    d1, d2, slope = nbody.growth_nodes(0.3, steps)
    position, velocity = np.array([d1[0], d2[0]]), np.array([1.0, slope[0]])
    for n in range(steps):
        keep, kick, half = nbody.bullfrog(d1[n : n + 2], position[1], slope[n : n + 2])
        position = position + half * velocity
        velocity = keep * velocity + kick * (position - np.array([0.0, position[0] ** 2]))
        position = position + half * velocity
    assert velocity == pytest.approx([1, slope[-1]], rel=1e-9)
    assert position == pytest.approx([1, d2[-1]], rel=0.01 if steps > 1 else 0.2)


def test_zeldovich_plane_wave_moves_along_its_axis_alone():
    contrast_k = torch.zeros(16, 16, 9, dtype=torch.complex64)
    contrast_k[1, 0, 0] = contrast_k[-1, 0, 0] = 0.2 * 16**3 / 2
    first, second = nbody.displacements(contrast_k)
    k = 2 * np.pi / BOX
    np.testing.assert_allclose(first[:, 0], -0.2 / k * torch.sin(k * nbody.lattice(16)[:, 0]), atol=1e-5)
    np.testing.assert_allclose(first[:, 1:], 0, atol=1e-6)
    np.testing.assert_allclose(second, 0, atol=1e-6)


def test_initial_field_has_the_linear_spectrum():
    k, power = [], []
    for seed in range(6):
        contrast = torch.fft.irfftn(nbody.linear_contrast(0.3, 0.8, seed, 16), s=(16,) * 3)
        k, one = grids.power_spectrum(1 + contrast, BOX, 6)
        power.append(one)
    np.testing.assert_allclose(np.mean(power, axis=0), linear.power(k, 0.3, 0.8), rtol=0.35)
    assert np.mean(np.mean(power, axis=0)[2:] / linear.power(k, 0.3, 0.8)[2:]) == pytest.approx(1, abs=0.1)


def test_noise_is_gaussian_hermitian_and_the_same_at_every_resolution():
    noise = nbody.white_noise(3, 32)
    drawn = noise[noise != 0]
    assert drawn.abs().square().mean().item() == pytest.approx(1, abs=0.04)
    assert (drawn.abs() ** 4).mean().item() == pytest.approx(2, abs=0.15)
    mirrored = noise[:, :, 0].roll((-1, -1), (0, 1)).flip(0, 1)
    np.testing.assert_allclose(noise[:, :, 0], mirrored.conj().resolve_conj(), atol=1e-6)
    coarse = nbody.white_noise(3, 8)
    np.testing.assert_array_equal(coarse[:4, :4, :4], noise[:4, :4, :4])
    np.testing.assert_array_equal(coarse[-3:, -3:, :4], noise[-3:, -3:, :4])


def test_two_resolutions_show_the_same_structures():
    low, high = (
        torch.fft.rfftn(grids.paint(nbody.evolve(0.3, 0.8, seed=9, particles=n, steps=8), 16, BOX)) for n in (16, 32)
    )
    low, high = (part[:3, :3, :3].flatten()[1:] for part in (low, high))
    correlation = (low * high.conj()).sum().real / (low.norm() * high.norm())
    assert correlation > 0.98


def test_same_seed_same_bits_other_seed_other_universe():
    runs = [nbody.evolve(0.3, 0.8, seed=seed, particles=16, steps=6) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert apart(runs[0], runs[2]) > 1
    assert runs[0].shape == (16**3, 3) and runs[0].dtype == torch.float32
    assert runs[0].min() >= 0 and runs[0].max() < BOX


def test_translation_of_the_initial_field_translates_the_universe():
    contrast = torch.fft.irfftn(nbody.linear_contrast(0.3, 0.8, 2, 16), s=(16,) * 3)
    here, there = (
        field(nbody.evolve_contrast(torch.fft.rfftn(initial), 0.3, steps=8), (16,) * 3)
        for initial in (contrast, contrast.roll((3, -5, 1), (0, 1, 2)))
    )
    moved = here.roll((3, -5, 1), (0, 1, 2)) + torch.tensor([3.0, -5.0, 1.0]) * BOX / 16
    assert apart(moved, there) < ROUNDING


def test_quarter_turn_of_the_initial_field_turns_the_universe():
    contrast = torch.fft.irfftn(nbody.linear_contrast(0.3, 0.8, 2, 16), s=(16,) * 3)
    # Turned about a node: (x, y) -> (-y, x), where index 0 stays itself.
    turn = contrast.transpose(0, 1).flip(0).roll(1, 0)
    here, there = (
        field(nbody.evolve_contrast(torch.fft.rfftn(initial), 0.3, steps=8), (16,) * 3) for initial in (contrast, turn)
    )
    turned = torch.stack([-here[..., 1], here[..., 0], here[..., 2]], dim=-1).transpose(0, 1).flip(0).roll(1, 0)
    assert apart(turned, there) < ROUNDING


def test_momentum_stays_zero_through_a_run():
    contrast_k = nbody.linear_contrast(0.3, 0.8, 4, 16)
    moved = nbody.evolve_contrast(contrast_k, 0.3, steps=12) - nbody.lattice(16)
    assert moved.mean(dim=0).abs().max() < 1e-4 * moved.abs().mean()


@pytest.mark.parametrize("wrong", [{"particles": 2}, {"particles": 16, "steps": 0}, {"particles": 16, "mesh": 1}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^expected particles >= 4, mesh >= 4 and steps >= 1, got [^\n]+$"):
        nbody.evolve(0.3, 0.8, seed=1, **wrong)


def test_wrap_never_returns_the_far_edge():
    wrapped = nbody.wrap(torch.tensor([-1e-9, -0.5, 25.0, 25.5]))
    assert wrapped.max() < BOX and wrapped.min() >= 0
    np.testing.assert_allclose(wrapped, [0, 24.5, 0, 0.5])
