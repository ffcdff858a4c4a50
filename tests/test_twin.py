import numpy as np
import pytest
import torch

from camelsight.ground import cmd
from camelsight.ground import theta as parameters
from camelsight.ground.cases import MEAN_SURFACE_DENSITY
from camelsight.ground.fields import TOTAL
from camelsight.universe import camels, nbody, projection
from camelsight.universe import mesh as grids
from conftest import refused

PAIR = ["Nbody_IllustrisTNG", "IllustrisTNG"]
SIZE = {"particles": 16, "steps": 6}
PIXELS = 16
ROUNDING = 1e-6  # of a mean of float32 pixels


@pytest.fixture(scope="module")
def pair():
    return observed(parameters.FIDUCIAL, PAIR)


def observed(theta, suites, seed=1):
    positions = nbody.evolve(*(float(value) for value in theta[:2]), seed=seed, **SIZE)
    return alone(camels.observed(positions, theta, suites, PIXELS))


def alone(maps):
    """suite -> maps of total matter, of suite -> field -> maps without any other."""
    assert all(list(by_field) == [TOTAL] for by_field in maps.values())
    return {suite: by_field[TOTAL] for suite, by_field in maps.items()}


def correlation(a, b):
    return np.corrcoef(np.log(a).ravel(), np.log(b).ravel())[0, 1]


def test_maps_are_positive_and_have_the_exact_mean_along_each_axis(pair):
    for maps in pair.values():
        assert maps.shape == (15, 16, 16) and maps.dtype == np.float32
        assert maps.min() > 0
        means = maps.reshape(3, -1).mean(axis=1, dtype=np.float64)
        np.testing.assert_allclose(means, MEAN_SURFACE_DENSITY * 0.3, rtol=ROUNDING)


def test_same_seed_same_bits_other_seed_other_universe(pair):
    (again,) = observed(parameters.FIDUCIAL, ["IllustrisTNG"]).values()
    np.testing.assert_array_equal(again, pair["IllustrisTNG"])
    (other,) = observed(parameters.FIDUCIAL, ["IllustrisTNG"], seed=2).values()
    assert abs(correlation(other, again)) < 0.3


def test_hydro_shows_the_region_of_its_gravity_only_twin(pair):
    hydro, gravity = pair["IllustrisTNG"], pair["Nbody_IllustrisTNG"]
    assert correlation(hydro, gravity) > 0.97
    assert not np.array_equal(hydro, gravity)


def test_gravity_only_maps_ignore_astrophysics(pair):
    theta = parameters.FIDUCIAL.copy()
    theta[2:] = 2.0
    (maps,) = observed(theta, ["Nbody_IllustrisTNG"]).values()
    np.testing.assert_array_equal(maps, pair["Nbody_IllustrisTNG"])


def test_a_lump_is_found_in_its_slab_and_pixel_along_each_axis():
    place, dense = torch.tensor([0.30, 0.52, 0.90]), torch.full((8, 8, 8), 1e7)  # so dense that nothing is spread
    lump = place.mul(cmd.BOX).expand(8**3, 3), torch.ones(8**3)
    maps = projection.surface_density([lump], dense, 0.3, 16).view(3, 5, 16, 16)
    x, y, z = (place * 16).int().tolist()
    for axis, slab, pixel in ((0, 1, (y, z)), (1, 2, (z, x)), (2, 4, (x, y))):
        assert maps[axis, slab][pixel] == pytest.approx(MEAN_SURFACE_DENSITY * 0.3 * 5 * 16**2, rel=ROUNDING)
        assert maps[axis].count_nonzero() == 1


def test_spreading_keeps_mass_and_centre_and_widens_by_level():
    widths = []
    for level in range(projection.LEVELS):
        levels = torch.zeros(projection.LEVELS, 1, 32, 32)
        levels[level, 0, 16, 16] = 1
        (spread,) = projection.spread(levels)
        offset = torch.arange(32) - 16.0
        assert spread.sum().item() == pytest.approx(1, abs=1e-5)
        assert spread.min() >= 0
        assert (spread.sum(1) * offset).sum().item() == pytest.approx(0, abs=1e-4)
        widths.append((spread.sum(1) * offset**2).sum().item())
    expected = [0.0] + [2.0 ** (n - 2) + 1 / 12 * n for n in range(projection.LEVELS - 1)]
    assert widths[0] == 0 and np.all(np.diff(widths) > 0)
    np.testing.assert_allclose(widths[2:], expected[2:], rtol=0.4)  # pixels add a twelfth to each blur


@pytest.mark.parametrize("particles", [128, 256])
@pytest.mark.parametrize(("density", "sigma"), [(1e-3, 8**0.5), (0.1, 2.0), (1.0, 1.0), (8.0, 0.5), (1e3, 0.0)])
def test_spread_is_next_to_that_of_the_sphere_of_32_particles_of_camels(particles, density, sigma):
    """Its radius is 1.97 of CMD's pixels at the mean density, and the standard deviation along an axis 0.88."""
    levels = projection.spread_level(torch.full((8, 8, 8), density), particles, cmd.PIXELS)
    assert levels.unique().tolist() == [0 if sigma == 0 else 3 + 2 * np.log2(sigma)]


def test_uniform_lattice_leaves_no_imprint():
    maps = projection.surface_density([(nbody.lattice(8), torch.ones(8**3))], torch.ones(8, 8, 8), 0.3, 16)
    assert maps.view(3, 5, 16, 16).std(dim=(2, 3)).max() < 0.02 * maps.mean()


def test_sheet_interpolates_across_the_edge_of_the_box():
    tracers = torch.cat([positions for positions, _ in projection.sheet(nbody.lattice(4), torch.ones(4**3))], dim=1)
    field = grids.paint(tracers.T, 8, cmd.BOX)
    np.testing.assert_allclose(field, 1, atol=1e-5)


def test_more_clustering_and_more_matter_are_visible():
    def spread(**changes):
        theta = parameters.FIDUCIAL.copy()
        theta[parameters.NAMES.index(next(iter(changes)))] = next(iter(changes.values()))
        (maps,) = observed(theta, ["Nbody_IllustrisTNG"]).values()
        return np.log10(maps).std()

    assert spread(sigma_8=0.6) < spread(sigma_8=0.8) < spread(sigma_8=1.0)


def test_the_twin_has_the_parameters_and_the_phases_of_its_simulation():
    maps = alone(camels.maps(PAIR, 264, pixels=PIXELS, **SIZE))
    values = camels.parameters("IllustrisTNG")[264]
    again = alone(camels.observed(camels.gravity("IllustrisTNG", 264, **SIZE), values, PAIR, PIXELS))
    for suite in PAIR:
        np.testing.assert_array_equal(maps[suite], again[suite])
        assert maps[suite].mean(dtype=np.float64) == pytest.approx(MEAN_SURFACE_DENSITY * values[0], rel=ROUNDING)
    partner = alone(camels.maps(["Nbody_IllustrisTNG"], 264, pixels=PIXELS, **SIZE))
    np.testing.assert_array_equal(maps["Nbody_IllustrisTNG"], partner["Nbody_IllustrisTNG"])


@pytest.mark.parametrize(
    ("suites", "simulation", "message"),
    [
        (["EAGLE"], 0, "expected a suite among"),
        (["SIMBA"], 1000, "expected a simulation from 0 to 999, got 1000"),
        (["SIMBA", "IllustrisTNG"], 0, "expected suites with the same initial conditions, got SIMBA, IllustrisTNG"),
    ],
)
def test_bad_input_gets_one_clear_line(suites, simulation, message):
    with refused(f"^{message}"):
        camels.maps(suites, simulation, pixels=PIXELS, **SIZE)
