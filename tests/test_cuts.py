import numpy as np
import pytest
import smoothing_library
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camelsight.ground import cases
from camelsight.maps import cuts

PYLIANS_TOLERANCE = 1e-5  # of the map's range: both sides work in float32
RANGE = (9.0, 14.0)


def lognormal_maps(count=3, size=64, seed=0):
    return np.exp(np.random.default_rng(seed).normal(26, 1, (count, size, size))).astype(np.float32)


def wave(size, mode, box=25.0):
    """1 + cos of a plane wave along x, and its wavenumber in h/Mpc."""
    x = np.arange(size) / size
    return (1 + np.cos(2 * np.pi * mode * x) * np.ones((size, 1))).astype(np.float32)[None], 2 * np.pi * mode / box


def filled(maps, threshold, side="min", seed=1, **more):
    """The maps with a random fill."""
    more = {"generator": np.random.default_rng(seed)} | more
    return cuts.density(maps, threshold, side=side, fill="random", log10_range=RANGE, **more)


@pytest.mark.parametrize("size", [32, 33])
def test_a_plane_wave_below_k_max_passes_and_one_above_vanishes(size):
    maps, k = wave(size, 5)
    np.testing.assert_allclose(cuts.kmax(maps, k * 1.01), maps, atol=1e-6)
    np.testing.assert_allclose(cuts.kmax(maps, k * 0.99), np.ones_like(maps), atol=1e-6)


@pytest.mark.parametrize("k_max", [1, 5, 10, 20, 30, 40, 50])
def test_equal_to_pylians_top_hat_k(k_max):
    field = lognormal_maps(1, 256)[0]
    kernel = smoothing_library.FT_filter_2D(25.0, 0, 256, "Top-Hat-k", 1, 0.0, float(k_max))
    reference = smoothing_library.field_smoothing_2D(field, kernel, 1)
    ours = cuts.kmax(field[None], k_max)[0]
    assert np.abs(ours - reference).max() < PYLIANS_TOLERANCE * np.ptp(field)


@pytest.mark.parametrize("k_max", [0.1, 1, 5])
def test_the_mean_stays(k_max):
    maps = lognormal_maps()
    np.testing.assert_allclose(cuts.kmax(maps, k_max).mean((1, 2)), maps.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("side", ["max", "min"])
@pytest.mark.parametrize("fill", ["clamp", "random"])
def test_the_kept_side_is_bit_identical_and_the_cut_side_filled(side, fill):
    maps, threshold = lognormal_maps(), 2e11
    out = cuts.density(maps, threshold, side=side, fill=fill, log10_range=RANGE, generator=np.random.default_rng(1))
    cut = maps > threshold if side == "max" else maps < threshold
    assert 0.1 < cut.mean() < 0.9
    assert (out[~cut] == maps[~cut]).all()
    if fill == "clamp":
        assert (out[cut] == np.float32(threshold)).all()
    else:
        log10 = np.log10(out[cut])
        assert (log10 >= RANGE[0]).all() and (log10 <= RANGE[1]).all()
        assert (out[cut] > threshold).any() and (out[cut] < threshold).any()  # fills may land on either side
        np.testing.assert_allclose(np.quantile(log10, [0.25, 0.5, 0.75]), [10.25, 11.5, 12.75], atol=0.1)


def test_a_pixel_at_the_threshold_is_kept():
    """The inequalities are strict."""
    maps = np.full((1, 2, 2), 5.0, np.float32)
    for side in ("max", "min"):
        assert (filled(maps, 5.0, side) == maps).all()


def test_random_fill_depends_on_the_index_of_a_map_and_on_nothing_beside_it():
    maps = lognormal_maps(6)

    def fill(rows, seed=1):
        generator = np.random.default_rng(seed)
        generator.random()  # the state of the generator must not matter
        return filled(maps[rows], 2e11, generator=generator, indices=rows)

    whole = fill([0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(fill([4, 1]), whole[[4, 1]])
    assert (fill([4, 1], seed=2) != whole[[4, 1]]).any()
    same = filled(maps[[0, 0]], 2e11)
    assert (same[0] != same[1]).any()


def test_tensors_come_back_as_tensors_with_the_same_pixels():
    maps = lognormal_maps()
    for cut in (
        lambda x: cuts.kmax(x, 3),
        lambda x: cuts.density(x, 2e11, side="max", fill="clamp"),
        lambda x: filled(x, 2e11, "max"),
    ):
        tensor = cut(torch.from_numpy(maps))
        assert isinstance(tensor, torch.Tensor) and isinstance(cut(maps), np.ndarray)
        np.testing.assert_array_equal(tensor.numpy(), cut(maps))


def test_cuts_do_not_change_their_input():
    maps = lognormal_maps()
    before = maps.copy()
    for case in ("kmax_3", "max_2e11_clamp", "min_2e11_random"):
        cuts.apply(maps, cases.parse(case).cuts, log10_range=RANGE, generator=np.random.default_rng(1))
    np.testing.assert_array_equal(maps, before)


def test_several_cuts_are_applied_in_order():
    maps = lognormal_maps()
    combined = cuts.apply(maps, cases.parse("kmax_3__max_2e11_clamp").cuts, log10_range=None, generator=None)
    by_hand = cuts.density(cuts.kmax(maps, 3), 2e11, side="max", fill="clamp")
    np.testing.assert_array_equal(combined, by_hand)
    assert combined.max() == np.float32(2e11)


def test_two_random_fills_of_one_case_draw_their_own_noise():
    maps = lognormal_maps(1)
    once, twice = (
        cuts.apply(maps, cases.parse(case).cuts, log10_range=RANGE, generator=np.random.default_rng(1))
        for case in ("max_1e8_random", "max_1e8_random__min_1e14_random")
    )
    assert (twice != once).mean() > 0.99


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e30), st.sampled_from(["max", "min"]), st.sampled_from(["clamp", "random"]))
def test_any_threshold_is_an_identity_a_full_fill_or_between(threshold, side, fill):
    maps = lognormal_maps(1, 8)
    out = cuts.density(maps, threshold, side=side, fill=fill, log10_range=RANGE, generator=np.random.default_rng(1))
    cut = maps > threshold if side == "max" else maps < threshold
    assert (out[~cut] == maps[~cut]).all() and np.isfinite(out).all()


def test_the_fraction_cut_is_of_pixels_or_of_modes():
    maps = np.array([[[1.0, 2.0], [3.0, 4.0]]], np.float32)
    assert cuts.fraction_cut(maps, cases.parse("max_3_clamp").cuts) == [0.25]
    assert cuts.fraction_cut(maps, cases.parse("min_3_clamp").cuts) == [0.5]
    # at 256 pixels, k_max = 40 keeps 96.9% of the modes and 50 all of them
    wide = np.empty((1, 256, 256))
    assert cuts.fraction_cut(wide, cases.parse("kmax_40").cuts)[0] == pytest.approx(0.031, abs=5e-4)
    assert cuts.fraction_cut(wide, cases.parse("kmax_50").cuts) == [0.0]


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("pixels", [0, 1, 2.5])
def test_smoothing_damps_a_plane_wave_by_its_gaussian_and_keeps_the_mean(size, pixels):
    maps, k = wave(size, 3, box=size)
    expected = 1 + (maps - 1) * np.exp(-((k * pixels) ** 2) / 2)
    np.testing.assert_allclose(cuts.smooth(maps, pixels), expected, atol=1e-6)


def test_smoothing_is_a_convolution_with_a_gaussian_of_that_many_pixels():
    point = np.zeros((1, 64, 64), np.float32)
    point[0, 32, 32] = 1
    distance = np.hypot(*np.mgrid[-32:32, -32:32])
    gaussian = np.exp(-(distance**2) / (2 * 3**2)) / (2 * np.pi * 3**2)
    np.testing.assert_allclose(cuts.smooth(point, 3)[0], gaussian, atol=1e-7)


def test_smoothing_does_not_ring_around_a_peak():
    """The highest pixel of CAMELS above a void."""
    maps = np.full((1, 64, 64), 1e9, np.float32)
    maps[0, 20, 30] = 2.85e15
    for pixels in (0.3, 1, 2, 3):
        assert cuts.smooth(maps, pixels).min() > 0.999e9


def test_smoothing_is_a_case_too():
    maps = lognormal_maps()
    case = cases.parse("smooth_2")
    smoothed = cuts.apply(maps, case.cuts, log10_range=RANGE, generator=None)
    assert np.array_equal(smoothed, cuts.smooth(maps, 2))
    kept = np.exp(-((2 * 2 * np.pi * np.fft.fftfreq(64)) ** 2)).mean() ** 2
    assert cuts.fraction_cut(maps, case.cuts) == [pytest.approx(1 - kept)]


def test_a_torch_generator_seeds_the_fill_too_and_keeps_its_state():
    maps = lognormal_maps()
    generator = torch.Generator().manual_seed(4)
    state = generator.get_state()
    whole, part = (filled(some, 1e11, generator=generator) for some in (maps, maps[:2]))
    assert torch.equal(generator.get_state(), state) and np.array_equal(whole[:2], part)
    assert not np.array_equal(whole, filled(maps, 1e11, generator=torch.Generator().manual_seed(5)))


def test_a_random_fill_is_log_uniform_over_the_range():
    maps = np.full((4, 64, 64), 1.0, np.float32)
    share, _ = np.histogram(np.log10(filled(maps, 2.0)), bins=5, range=RANGE)
    np.testing.assert_allclose(share / maps.size, 0.2, atol=0.015)  # four standard deviations of 16384 draws


def test_read_only_maps_are_cut_too():
    """A memory map is read-only, of which torch warns."""
    maps = lognormal_maps()
    expected = cuts.kmax(maps, 5), cuts.smooth(maps, 1), cuts.density(maps, 2e11, side="max", fill="clamp")
    maps.flags.writeable = False
    results = cuts.kmax(maps, 5), cuts.smooth(maps, 1), cuts.density(maps, 2e11, side="max", fill="clamp")
    assert all(np.array_equal(*pair) for pair in zip(expected, results, strict=True))


def test_a_mode_exactly_at_k_max_is_cut():
    """Where k_max squared is k squared to the last bit; elsewhere rounding decides."""
    k2 = cuts._k_squared(32)[0].numpy()
    exact = [mode for mode in range(1, 15) if np.sqrt(k2[mode]) ** 2 == k2[mode]]
    assert exact
    for mode in exact:
        maps, _ = wave(32, mode)
        np.testing.assert_allclose(cuts.kmax(maps, np.sqrt(k2[mode])), np.ones_like(maps), atol=1e-6)


def test_reversed_and_big_endian_maps_are_cut_too():
    maps = lognormal_maps()
    np.testing.assert_array_equal(cuts.kmax(maps[:, ::-1], 5), cuts.kmax(maps[:, ::-1].copy(), 5))
    np.testing.assert_array_equal(cuts.kmax(maps.astype(">f4"), 5), cuts.kmax(maps, 5))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        *((lambda maps, k_max=k_max: cuts.kmax(maps, k_max), "expected k_max above 0") for k_max in (0, -10, np.nan)),
        (lambda maps: cuts.density(maps, 1e11, side="max", fill="noise"), "got 'max' and 'noise'"),
        (lambda maps: cuts.density(maps, 1e11, side="max", fill="random"), "needs log10_range and generator"),
        (lambda maps: filled(maps, 1e11, indices=[0, 1]), "got 2 for 3"),
        (lambda maps: filled(maps, 1e11, generator=np.random.RandomState(1)), "got RandomState"),
        (lambda maps: cuts.smooth(maps, -1), "got -1"),
    ],
)
def test_what_cannot_be_cut_is_refused(cut, message):
    with pytest.raises(ValueError, match=message):
        cut(lognormal_maps())
