import ctypes
import ctypes.util
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from camelsight.ground import cmd, theta
from camelsight.universe import camels, nbody

ROOT = Path(__file__).parent.parent
ROUNDING = 1e-12  # of noise in double precision
# Of params_LH_{suite}.txt as CMD has it since May 2024.
SHA256 = {
    "IllustrisTNG": "83ec62cceb81547b8940d8ed77371834171648d5c8e8d99990cf012e71a5b2b8",
    "SIMBA": "f876da71180b2f9d0b0df01b1f42bc29e5012b5c9b76ec65e0e3a716dfb97999",
    "Astrid": "0652a3e0eedc4173547ded90842063d9b82953b027eb8e3c58d043a20a48e7ed",
}
# Of gsl_rng_ranlxd1 in the GNU Scientific Library, seed -> first draws.
DRAWS = {
    1: "0.83451879245814453 0.61670202724383927 0.44438336146091828 0.038517618778346474 0.5896974345675261 "
    "0.19934302505318513 0.96226994143173172 0.37337926667644794 0.39721900436430957 0.7659567284003721 "
    "0.6348646607383337 0.43528184829428085 0.42880846897097413",
    5: "0.6210284047689747 0.020170719168316253 0.49102405780178771 0.43680117183871303",
    5000: "0.57730344665893085 0.21250020937812053",
    2147483646: "0.32035142707377773 0.28029170354147936",
}
# Modes of N-GenIC's noise for six seeds at n = 16, made with the library: seed -> {"i,j,k": [real, imaginary]}.
NOISE = json.loads((Path(__file__).parent / "ic_noise.json").read_text())


def first_draws(seed, number):
    return [camels.uniform(draw) for draw in camels.ranlxd1(seed, number)]


@pytest.fixture(scope="module")
def gsl():
    libraries = [ctypes.util.find_library(name) for name in ("gslcblas", "gsl")]
    if not all(libraries):
        pytest.skip("the GNU Scientific Library (Debian: libgsl27) is not on this machine")
    library = [ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL) for name in libraries][1]
    library.gsl_rng_alloc.restype = ctypes.c_void_p
    library.gsl_rng_alloc.argtypes = [ctypes.c_void_p]
    library.gsl_rng_set.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
    library.gsl_rng_uniform.restype = ctypes.c_double
    library.gsl_rng_uniform.argtypes = [ctypes.c_void_p]
    library.gsl_rng_free.argtypes = [ctypes.c_void_p]
    return library


@pytest.mark.parametrize("suite", theta.SUITES)
def test_parameter_files_come_out_byte_for_byte(suite):
    file = io.BytesIO()
    np.savetxt(file, camels.parameters(suite), fmt="%.5f")
    assert hashlib.sha256(file.getvalue()).hexdigest() == SHA256[theta.hydro_suite(suite)]


@pytest.mark.parametrize("suite", theta.SUITES)
def test_parameters_are_within_the_ranges_of_the_suite(suite):
    cmd.check_params(camels.parameters(suite), cmd.SIMULATIONS, suite, "the table")


def test_initial_seeds_are_those_of_the_simulations():
    assert camels.initial_seed("IllustrisTNG", 829) == camels.initial_seed("Nbody_IllustrisTNG", 829) == 829
    assert camels.initial_seed("SIMBA", 0) == 5000
    assert camels.initial_seed("Nbody_Astrid", 999) == 10999
    with pytest.raises(ValueError, match=r"^expected a simulation from 0 to 999, got 1000$"):
        camels.initial_seed("SIMBA", 1000)


@pytest.mark.parametrize("seed", DRAWS)
def test_first_draws_are_those_of_the_library(seed):
    expected = [float(draw) for draw in DRAWS[seed].split()]
    assert first_draws(seed, len(expected)) == expected


def test_many_generators_at_once_draw_what_each_draws_alone():
    seeds = [0, 1, 5, 5000, 2147483646]
    together = torch.stack(camels.ranlxd1(torch.tensor(seeds), 30))
    for seed, draws in zip(seeds, together.T, strict=True):
        assert draws.tolist() == camels.ranlxd1(seed, 30)


def test_draws_are_those_of_the_library_on_this_machine(gsl):
    kind = ctypes.c_void_p.in_dll(gsl, "gsl_rng_ranlxd1")
    for seed in (0, 1, 592, 10999, 0x7FFFFFFE):
        generator = gsl.gsl_rng_alloc(kind)
        gsl.gsl_rng_set(generator, seed)
        assert first_draws(seed, 100) == [gsl.gsl_rng_uniform(generator) for _ in range(100)]
        gsl.gsl_rng_free(generator)


@pytest.mark.parametrize("particles", [16, 32])
@pytest.mark.parametrize("seed", NOISE)
def test_noise_is_that_of_camels_at_any_resolution(seed, particles):
    noise = camels.white_noise(int(seed), particles)
    assert noise.shape == (particles, particles, particles // 2 + 1) and noise.dtype == torch.complex128
    for label, (real, imaginary) in NOISE[seed].items():
        i, j, k = (int(number) for number in label.split(","))
        assert abs(noise[i, j, k].item() - complex(real, imaginary)) < ROUNDING


def test_low_modes_do_not_depend_on_resolution():
    coarse, fine = (camels.white_noise(829, particles) for particles in (16, 32))
    low = torch.arange(-7, 8)
    np.testing.assert_array_equal(coarse[low[:, None], low, :8], fine[low[:, None], low, :8])


@pytest.mark.parametrize("particles", [8, 16])
def test_noise_is_hermitian_gaussian_and_without_nyquist_modes(particles):
    noise = camels.white_noise(264, particles)
    half, plane = particles // 2, noise[..., 0]
    np.testing.assert_array_equal(plane, plane.roll((-1, -1), (0, 1)).flip(0, 1).conj().resolve_conj())
    for modes in (noise[half], noise[:, half], noise[..., half], noise[0, 0, 0]):
        assert not modes.any()
    drawn = noise[noise != 0]
    assert len(drawn) == (particles - 1) ** 2 * half - 1
    assert drawn.abs().square().mean().item() == pytest.approx(1, abs=4 / len(drawn) ** 0.5)


def test_first_two_simulations_have_the_same_phases_because_the_generator_takes_0_as_1():
    assert torch.equal(camels.white_noise(0, 8), camels.white_noise(1, 8))
    assert not torch.equal(camels.white_noise(1, 8), camels.white_noise(2, 8))


@pytest.mark.parametrize("particles", [2, 15])
def test_a_lattice_without_a_nyquist_mode_is_refused(particles):
    with pytest.raises(ValueError, match=rf"^expected an even number of particles a side, 4 or more, got {particles}$"):
        camels.white_noise(1, particles)


def test_a_wave_peaks_where_its_phase_says():
    """In the convention e^{+ikx}: noise e^{-ik x0} makes a pancake at x0."""
    noise = torch.zeros(16, 16, 9, dtype=torch.complex128)
    wave = np.exp(-2j * np.pi * 5 / 16)
    noise[1, 0, 0], noise[-1, 0, 0] = wave, np.conj(wave)
    contrast = torch.fft.irfftn(nbody.scaled(noise, 0.3, 0.8), s=(16,) * 3)
    assert contrast[:, 0, 0].argmax() == 5


def correlation(log_a, log_b, k_max=2.0):
    """Of two maps' modes below ``k_max`` in h/Mpc."""
    k = 2 * np.pi / cmd.BOX * np.fft.fftfreq(64, 1 / 64)
    low = np.hypot(k[:, None], k) < k_max
    a, b = (np.fft.fft2(field - field.mean())[low] for field in (log_a, log_b))
    return (a * b.conj()).sum().real / (np.linalg.norm(a) * np.linalg.norm(b))


def gravity_maps(simulation, particles):
    suite = "Nbody_IllustrisTNG"
    return camels.maps([suite], simulation, particles=particles, pixels=64)[suite]["Mtot"]


def test_maps_show_what_the_published_map_shows():
    published = np.load(ROOT / "paper" / "tng_lh0_map0_log10.npy").astype(np.float64)
    maps = gravity_maps(0, particles=64)
    assert maps.shape == (15, 64, 64) and maps.dtype == np.float32 and maps.min() > 0
    ours = np.log10(maps, dtype=np.float64)
    assert correlation(ours[0], published) > 0.98
    assert max(correlation(ours[n], published) for n in range(1, 15)) < 0.4
    assert correlation(ours[0].T, published) < 0.4
    other = gravity_maps(3, particles=32)
    assert correlation(np.log10(other[0], dtype=np.float64), published) < 0.4
