"""What is compiled from particles.cpp against torch's operators."""

import numpy as np
import pytest
import torch

from camelsight.pipeline import compiled, paths
from camelsight.universe import mesh as grids
from camelsight.universe import nbody, particles, projection

BOX = nbody.BOX
ROUNDING = 1e-5  # relative to the largest value, of float32 sums over a few particles a cell


@pytest.fixture(autouse=True)
def library():
    path = compiled.library(paths.PARTICLES_SOURCE)
    if not path.exists():
        compiled.build()
    yield path
    particles.load(None)


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def both(library, compute):
    """What ``compute`` returns with torch and with the library."""
    particles.load(None)
    expected = compute()
    particles.load(library)
    return expected, compute()


def assert_close(expected, got):
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING * expected.abs().max().item())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mesh", [4, 7, 16])
def test_mass_is_deposited_as_by_torch_from_any_image_of_the_box(library, mesh, weighted):
    positions = torch.cat([draw(3000, 3) * 3 * BOX - BOX, torch.tensor([[0.0, BOX, -1e-9], [BOX, -BOX, 2 * BOX]])])
    weights = draw(3002, seed=1) if weighted else None
    assert_close(*both(library, lambda: grids.paint(positions, mesh, BOX, weights)))


@pytest.mark.parametrize("mesh", [4, 7, 16])
def test_forces_are_those_of_torch(library, mesh):
    positions, kernel = draw(1001, 3) * 3 * BOX - BOX, nbody.force_kernel(mesh)
    assert_close(*both(library, lambda: nbody.acceleration(positions, kernel)))


def test_momentum_is_conserved_to_rounding(library):
    particles.load(library)
    force = nbody.acceleration(draw(4096, 3) * BOX, nbody.force_kernel(16))
    assert force.sum(dim=0).abs().max() < ROUNDING * force.abs().sum(dim=0).min()


@pytest.mark.parametrize("pixels", [8, 24])
def test_maps_are_those_of_torch(library, pixels):
    positions = nbody.lattice(8) + 4 * torch.randn(512, 3, generator=torch.Generator().manual_seed(2))
    density, weights = 3 * draw(8, 8, 8), draw(512, seed=1).sub(0.2).clamp_min(0)
    parts = [(positions, weights), (positions + 30, 1 - weights)]
    expected, got = both(library, lambda: projection.surface_density(parts, density, 0.3, pixels))
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_a_universe_is_that_of_torch_and_has_the_same_bits_every_time(library):
    expected, got = both(library, lambda: nbody.evolve(0.3, 0.8, seed=1, particles=16, steps=6))
    apart = got - expected
    assert (apart - BOX * torch.round(apart / BOX)).abs().max() < 2e-3
    assert torch.equal(got, nbody.evolve(0.3, 0.8, seed=1, particles=16, steps=6))


def test_a_gpu_double_precision_and_a_missing_library_stay_with_torch(library):
    positions = torch.zeros(1, 3)
    assert not particles.serves(positions)
    particles.load(library)
    assert particles.serves(positions)
    assert not particles.serves(positions.double()) and not particles.serves(positions.to("meta"))
