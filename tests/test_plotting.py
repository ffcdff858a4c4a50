import io
from functools import cache
from itertools import combinations, product

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from camelsight.ground import cases, theta
from camelsight.report import (
    calibration,
    plotting,
    plotting_attribution,
    plotting_calibration,
    plotting_robustness,
    plotting_tuning,
    plotting_universe,
    robustness,
)
from camelsight.report.plotting import SIGNED_MAP
from camelsight.report.plotting_attribution import METHODS
from camelsight.report.plotting_tuning import HYPERPARAMETERS

SUITES = ("IllustrisTNG", "Nbody_IllustrisTNG")
SMALL = ("original", "kmax_1", "max_1e12_clamp")
LARGE = (
    "original", "kmax_1", "kmax_5", "kmax_10", "kmax_20", "kmax_30", "kmax_40", "kmax_50",
    "max_5e10_clamp", "max_1e11_random", "max_1e12_clamp", "min_1e11_clamp", "min_4e11_clamp", "min_4e11_random",
    "min_2e12_random", "kmax_10__max_1e12_clamp",
)  # fmt: skip
SIX = LARGE[:1] + LARGE[8:13]
PAPER = (
    *LARGE[:8], *(f"{side}_{n}e1{power}_{fill}" for side in ("max", "min") for n in (1, 2, 5) for power in (0, 1)
                  for fill in ("clamp", "random")),
)  # fmt: skip
TRANSFERRED = [*SUITES, "SIMBA"]


def rows_of(case_ids):
    """R² that differs in every row, with an interval that is not symmetric."""
    keys = [(suite, case, name) for suite in SUITES for case in case_ids for name in theta.NAMES]
    values = np.linspace(0.3, 0.9, len(keys))
    return [
        {"suite": suite, "case": case, "parameter": name, "r2": r2, "low": r2 - 0.04, "high": r2 + 0.02}
        for (suite, case, name), r2 in zip(keys, values, strict=True)
    ]


def densities(shape, seed=0):
    return 4e11 * np.exp(np.random.default_rng(seed).normal(size=shape))


def profile(bins=16):
    edges = np.logspace(-1.5, 2.5, bins + 1)
    centres = np.sqrt(edges[1:] * edges[:-1])
    area = np.where(centres < 40, np.exp(-(np.log(centres) ** 2)), 0)
    area /= area.sum()
    per_pixel = np.where(area > 0, centres**0.5, np.nan)
    total = np.where(area > 0, area * centres**0.5, np.nan)
    spread = np.array([1, 0.8, 1.3])[:, None]
    return {"centres": centres, "area": area, "per_pixel": tuple(spread * per_pixel), "total": tuple(spread * total)}


def by_suite_parameter_method(table):
    return {suite: {name: dict.fromkeys(METHODS, table) for name in theta.COSMOLOGICAL} for suite in SUITES}


def fourier(shells=45):
    k = 0.2513 * np.arange(1, shells)
    return by_suite_parameter_method({"k": k, "correlation": tuple(np.exp(-k / 5) + np.array([[0], [-0.1], [0.1]]))})


def around():
    r = np.linspace(0, 6, 17)
    table = {"r": r, "profile": tuple(1 + np.exp(-(r**2)) + np.array([[0], [-0.1], [0.1]]))}
    return by_suite_parameter_method({"voids": table, "halos": table})


def checks():
    layers = ["FC2", "FC1", *(f"C{block}{n}" for block in range(4) for n in (1, 2, 3))]
    fall = {layer: 0.8 / (1 + number) for number, layer in enumerate(layers)}
    cascade = {layer: {name: dict.fromkeys(METHODS, fall[layer]) for name in theta.COSMOLOGICAL} for layer in layers}
    r2 = {key: [0.9, 0.8, 0.5, 0, -1, -8, -1] for key in (*METHODS, "random")}
    curves = {"fractions": [0, 0.002, 0.01, 0.05, 0.1, 0.5, 1], "deletion": r2, "insertion": r2}
    return cascade, dict.fromkeys(theta.COSMOLOGICAL, curves)


def study(trials):
    """The record of a search in which every fourth trial was not stopped."""
    losses = np.random.default_rng(trials).normal(-8, 0.3, trials)
    return {
        "trials": [
            {"number": i, "state": "pruned" if i % 4 else "complete", "losses": [loss + 3 * (i % 4 > 0)]}
            for i, loss in enumerate(losses)
        ],
        "importances": dict(zip(HYPERPARAMETERS, (0.6, 0.1, 0.25, 0.05), strict=True)) if trials > 1 else {},
    }


def searches():
    return [
        {"kind": kind, "epochs": epochs, "best": [[1, 0.5], [3, -6.9], [epochs // 2, end - 0.1 * seed]]}
        for kind, epochs, end in (("full", 720, -9.1), ("halving", 102, -8.8))
        for seed in (1, 2, 3)
    ] + [{"kind": "halving", "epochs": 0, "best": []}]


def measured(r2=0.8):
    triples = {name: [r2 - 0.1 * column, r2 - 0.1 * column - 0.05, 0.95] for column, name in enumerate(theta.NAMES)}
    keys = ("r2", "relative_error", "bias", "bias_slope", "chi2")
    return dict.fromkeys(keys, triples)


def robustness_records():
    """The form of what stage transfer writes."""

    def rows(*settings, **more):
        return {"suite": SUITES[0], "rows": [{"setting": one, "metrics": measured()} | more for one in settings]}

    counts = ((10, 12), (32, 4), (128, 1), (128, 4), (128, 12))
    kinds = ("training maps", "all maps", "test maps")
    return {
        "suites": {
            "suites": TRANSFERRED,
            "rows": [{"train": a, "test": b, "metrics": measured()} for a in TRANSFERRED for b in TRANSFERRED],
        },
        "smoothing": {"rows": [{"width": width, "metrics": measured(0.3 + width / 10)} for width in (0.0, 1.0, 2.0)]},
        "probes": {"rows": [{"probe": one, "metrics": measured(r2)} for one, r2 in (("none", 0.9), ("kmax_1", -2e6))]},
        "leakage": rows(
            "split by simulation", "148 simulations split at random, apparent", "18 simulations split at random, true"
        ),
        "simulations": {
            "rows": [
                {"setting": f"{n} simulations, {m} maps of each", "simulations": n, "maps": m, "metrics": measured()}
                for n, m in counts
            ]
        },
        "normalisation": {"rows": [row for suite in SUITES for row in rows(*kinds, test=suite)["rows"]]},
        "augmentation": rows("eight symmetries", "rotations only", "no symmetries"),
        "seeds": rows("seed 0", "seed 1", "seed 2"),
    }


def robustness_figures(truth):
    arrays = {"truth": truth, "mean": truth + 0.02, "sigma": truth / 10}
    pairs = dict.fromkeys(product(TRANSFERRED, repeat=2), arrays)
    panels = dict.fromkeys(
        ("none", "pixels shuffled", "mean only", "phases random", "log phases random", "log Gaussianised"),
        densities((16, 16)),
    )
    records = robustness_records()
    curves = records.pop("simulations")["rows"]
    studies = robustness.settings({study: records[study] for study in robustness.STUDIES if study in records})
    return {
        "transfer": plotting_robustness.transfer(TRANSFERRED, pairs, "sigma_8"),
        "crossed": plotting_robustness.crossed({pair: pairs[pair] for pair in list(pairs)[1:3]}),
        "smoothing": plotting_robustness.smoothing(records["smoothing"]["rows"]),
        "probes": plotting_robustness.probes(panels | {"phases random": panels["none"] - 3e11}),
        "generalisation": plotting_robustness.generalisation(studies, curves),
        "generalisation, leakage alone": plotting_robustness.generalisation({"leakage": studies["leakage"]}, []),
        "generalisation, curves alone": plotting_robustness.generalisation({}, curves),
    }


def calibration_figure(case_ids):
    one = {"coverage_68": (0.6, 0.5, 0.7), "coverage_95": (0.9, 0.8, 0.99), "chi2": (1.5, 0.5, 20)}
    metrics = {key: dict.fromkeys(theta.NAMES, triple) for key, triple in one.items()}
    measured = {(suite, suite, case): metrics for suite in SUITES for case in case_ids}
    measured |= {(SUITES[0], "SIMBA", "original"): metrics}
    pit = [
        {"suite": suite, "parameter": name, "from": b / 10, "to": (b + 1) / 10, "density": 1.0, "low": 0.5, "high": 1.5}
        for suite in SUITES for name in theta.NAMES for b in range(10)
    ]  # fmt: skip
    return plotting_calibration.calibration(pit, calibration.rows(measured, robustness.comparable))


FIELDS = (("Mtot", "Mgas"), ("Mgas", "Mstar"), ("P", "T"), ("Mtot", "HI", "Vgas"), ("Z",))


def figures_of_fields(maps, truth):
    """Those that show maps, of other fields than total matter and of several."""
    rng, drawn = np.random.default_rng(2), {}
    for fields in FIELDS:
        stacks = np.concatenate([maps * 10.0**-n for n in range(len(fields))], axis=1)
        stacks[:, 1:, 3, 3] = 0
        signed = rng.normal(size=(2, *stacks.shape[1:]))
        name = " and ".join(fields)
        drawn |= {
            f"gallery of {name}": plotting.gallery(dict.fromkeys(SUITES, stacks), truth[:5], fields=fields),
            f"attribution_maps of {name}": plotting_attribution.attribution_maps(
                stacks[0], dict.fromkeys(METHODS, signed), fields=fields
            ),
        }
        for number, ids in (("few", SMALL), ("many", LARGE)):
            panels = [(cases.parse(case), stacks[0] - 3e11 * (case == "kmax_1")) for case in ids]
            drawn[f"cuts of {name}, {number} cases"] = plotting.cuts(panels, fields=fields)
        for number, ids in (("two", SMALL[::2]), ("six", SIX)):
            panels = [(cases.parse(case), stacks[0], signed) for case in ids]
            drawn[f"attribution_cuts of {name}, {number} cases"] = plotting_attribution.attribution_cuts(
                panels, fields=fields
            )
    return drawn


@cache
def figures():
    """One of each figure, those that depend on the cases for few and for many."""
    rng = np.random.default_rng(1)
    low, high = theta.ranges("IllustrisTNG")
    truth = low + (high - low) * rng.random((12, 6))
    r2 = dict.fromkeys(theta.NAMES, (-0.1234, -0.2, 0.1))
    layers = [("input", 1, 256, "input"), *((f"block {i}", 12 * 2**i, 256 >> i, "conv") for i in range(1, 7))]
    layers += [("conv 4×4", 1536, 1, "conv"), ("FC1", 768, 1, "dense"), ("output", 12, 1, "output")]
    maps = densities((5, 1, 16, 16))
    signed = {method: rng.normal(size=(2, 1, 16, 16)) for method in METHODS}
    bins = {suite: {name: dict.fromkeys(METHODS, profile()) for name in theta.COSMOLOGICAL} for suite in SUITES}
    k = np.linspace(0.36, 15.9, 63)
    spectra = 300 * k**-1.5 * np.exp(rng.normal(0, 0.1, (8, 63)))
    gravity = {"k": k, "power": spectra, "converged": spectra[0], "linear": 300 * k**-2.5, "hmcode": 600 * k**-1.5}
    ratios = {"fiducial": 1 - 0.01 * k[None], "varied": dict.fromkeys(theta.NAMES[2:], (1 - 0.005 * k, 1 - 0.02 * k))}
    drawn = {
        "power_spectrum": plotting_universe.power_spectrum(gravity | {"k_half_nyquist": 4.02, "k_resolved": 4.1}),
        "power_spectrum, unresolved": plotting_universe.power_spectrum(
            gravity | {"k_half_nyquist": 1.0, "k_resolved": 0.36}
        ),
        "baryons": plotting_universe.baryons(k, dict.fromkeys(("IllustrisTNG", "SIMBA"), ratios)),
        "not simulated": plotting.message("for simulated maps only"),
        "architecture": plotting.architecture(layers),
        "gallery": plotting.gallery(dict.fromkeys(SUITES, maps), truth[:5]),
        "truth_prediction": plotting.truth_prediction(truth, truth + 0.01, truth / 10, suite="IllustrisTNG", r2=r2),
        "attribution_maps": plotting_attribution.attribution_maps(maps[0], signed),
        "attribution_against_density": plotting_attribution.attribution_against_density(bins),
        "attribution_scales": plotting_attribution.attribution_scales(fourier(), rows_of(LARGE), 32.17),
        "attribution_profiles": plotting_attribution.attribution_profiles(around()),
        "sanity": plotting_attribution.sanity(*checks()),
        "tuning": plotting_tuning.tuning({suite: [study(50), study(2)] for suite in SUITES}),
        "tuning, two trials": plotting_tuning.tuning({SUITES[0]: [study(2)]}),
        "tuning, none": plotting_tuning.tuning({suite: [study(0)] for suite in SUITES}),
        "tuning_epochs": plotting_tuning.tuning_epochs(searches()),
    }
    drawn |= robustness_figures(truth)
    for number, ids in (("two", SMALL[::2]), ("six", SIX)):
        panels = [(cases.parse(case), maps[0], rng.normal(size=(2, 1, 16, 16)) / 1000) for case in ids]
        drawn[f"attribution_cuts, {number} cases"] = plotting_attribution.attribution_cuts(panels)
    drawn |= figures_of_fields(maps, truth)
    drawn["calibration, cases of the paper"] = calibration_figure(PAPER)
    for number, ids in (("few", SMALL), ("many", LARGE)):
        panels = [(cases.parse(case), maps[0] - 3e11 * (case == "kmax_1")) for case in ids]
        drawn[f"calibration, {number} cases"] = calibration_figure(ids)
        drawn[f"cuts, {number} cases"] = plotting.cuts(panels)
        drawn[f"r2_against_kmax, {number} cases"] = plotting.r2_against_kmax(rows_of(ids), 32.17, 45.50)
        drawn[f"r2_against_density, {number} cases"] = plotting.r2_against_density(rows_of(ids))
    return drawn


def saved(figure):
    file = io.BytesIO()
    figure.savefig(file, format="pdf", metadata={"CreationDate": None})
    return file.getvalue()


def printed_texts(figure):
    """Every text that reaches the paper, with its box in pixels; labels of ticks outside the axes do not."""
    canvas = FigureCanvasAgg(figure)
    figure.settle()
    figure.draw_without_rendering()
    hidden = set()
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if not (low <= tick.get_loc() <= high or np.isclose(tick.get_loc(), [low, high]).any()):
                hidden.update([tick.label1, tick.label2])
        if not axis.axes.axison or not axis.get_visible():
            hidden.update(axis.findobj(Text))
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


def test_no_text_overlaps_another_or_leaves_the_figure():
    for name, figure in figures().items():
        texts = printed_texts(figure)
        width, height = figure.bbox.size
        assert len(texts) > 5 or name in ("not simulated", "tuning, none"), name
        for text, box in texts:
            assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, (name, text)
        for (first, a), (second, b) in combinations(texts, 2):
            assert not a.padded(-0.5).overlaps(b.padded(-0.5)), f"{name}: {first!r} overlaps {second!r}"


def test_the_overlap_check_sees_an_overlap():
    figure = plotting._figure(2, 2)
    figure.text(0.5, 0.5, "one")
    figure.text(0.51, 0.5, "two")
    (_, first), (_, second) = printed_texts(figure)
    assert first.overlaps(second)


def test_figures_fit_the_page_and_their_type_is_large_enough_for_print():
    for figure in figures().values():
        assert figure.get_figwidth() <= plotting.PAGE
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 7


def test_fonts_are_embedded_the_bytes_are_the_same_twice_and_the_callers_settings_are_left_alone():
    before = dict(mpl.rcParams)
    pdf, again = (saved(plotting.r2_against_kmax(rows_of(SMALL), 2.0, 2.8)) for _ in range(2))
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf
    assert pdf == again and dict(mpl.rcParams) == before


@pytest.mark.parametrize("setting", ["figure.autolayout", "figure.constrained_layout.use"])
def test_every_format_shows_the_same_layout_and_one_more_pass_would_move_nothing(setting, monkeypatch):
    """Whatever layout somebody's own settings of Matplotlib ask for."""
    monkeypatch.setitem(mpl.rcParams, setting, True)
    figure = plotting.cuts([(cases.parse(case), densities((1, 16, 16)) - 3e11 * (case == "kmax_1")) for case in SMALL])
    drawn = [saved(figure), saved(figure)]
    places = [axes.get_position().bounds for axes in figure.axes]
    figure.set_layout_engine("constrained")
    figure.draw_without_rendering()
    assert drawn[0] == drawn[1]
    assert np.allclose(places, [axes.get_position().bounds for axes in figure.axes], atol=2e-3)


def test_suites_differ_in_grey_and_in_marker():
    def grey(suite):
        return np.dot([0.2126, 0.7152, 0.0722], np.array(to_rgb(plotting.SUITES[suite][0])) ** 2.2) ** (1 / 2.2)

    assert set(plotting.SUITES) == set(theta.SUITES)
    assert len({colour for colour, _ in plotting.SUITES.values()}) == len(plotting.SUITES)
    assert len({marker for _, marker in plotting.SUITES.values()}) == len(plotting.SUITES)
    assert abs(grey("IllustrisTNG") - grey("Nbody_IllustrisTNG")) > 0.2


def test_a_suite_has_one_colour_in_every_figure():
    for figure in figures().values():
        for legend in figure.legends:
            for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
                for suite in SUITES:
                    if text.get_text() == plotting.suite_label(suite):
                        assert (handle.get_color(), handle.get_marker()) == plotting.SUITES[suite]


def curves(axes):
    """(colour, marker face, x, y, low, high) of each error-bar line."""
    for container in axes.containers:
        line, _, (bars,) = container
        low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
        yield line.get_color(), line.get_fillstyle(), line.get_xdata(), line.get_ydata(), low, high


@pytest.mark.parametrize("parameter, column", [("omega_m", 0), ("sigma_8", 1)])
def test_the_kmax_figure_shows_the_rows(parameter, column):
    rows = rows_of(LARGE)
    axes = plotting.r2_against_kmax(rows, 32.17, 45.50).axes[column]
    for suite, (colour, _, x, y, low, high) in zip(SUITES, curves(axes), strict=True):
        wanted = [
            row for row in rows
            if row["suite"] == suite and row["parameter"] == parameter and row["case"].count("_") == 1
        ]  # fmt: skip
        np.testing.assert_allclose(x, [1, 5, 10, 20, 30, 40, 50], rtol=0.02)  # suites stand a little apart
        np.testing.assert_allclose(y, [row["r2"] for row in wanted])
        np.testing.assert_allclose(low, [row["low"] for row in wanted])
        np.testing.assert_allclose(high, [row["high"] for row in wanted])
        assert colour == plotting.SUITES[suite][0]


def test_the_density_figure_puts_the_cuts_in_their_panels_and_the_fills_apart():
    rows = rows_of(LARGE)
    above, below = plotting.r2_against_density(rows).axes[:2]
    shown = [(colour, fill, len(x)) for colour, fill, x, *_ in curves(above)]
    blue, orange = (plotting.SUITES[suite][0] for suite in SUITES)
    assert shown == [(blue, "full", 2), (blue, "none", 1), (orange, "full", 2), (orange, "none", 1)]
    assert [len(x) for _, _, x, *_ in curves(below)] == [2, 2, 2, 2]


@pytest.mark.parametrize("omega_m", [0.1, 0.3])
def test_the_upper_axis_is_the_threshold_over_the_mean(omega_m):
    figure = plotting.r2_against_density(rows_of(LARGE), omega_m)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (upper,) = axes.child_axes
    limits = [cases.Cut("max", x, "clamp").overdensity(omega_m) for x in axes.get_xlim()]
    np.testing.assert_allclose(upper.get_xlim(), limits)
    assert upper.get_xlim()[1] == pytest.approx(1.6e12 / (1.3877e12 * omega_m))


def test_absent_and_undefined_rows_are_skipped():
    rows = rows_of(("original", "kmax_1", "kmax_2"))
    rows = [row for row in rows if (row["case"], row["suite"]) != ("original", SUITES[1])]
    rows = [row | {"r2": np.nan} if row["case"] == "kmax_1" else row for row in rows]
    axes = plotting.r2_against_kmax(rows, 2.0, 2.8).axes[0]
    assert [len(x) for _, _, x, *_ in curves(axes)] == [1, 1]
    empty = plotting.r2_against_density(rows).axes[0]
    assert [text.get_text() for text in empty.texts] == ["no such case in this profile"]


def test_predictions_are_drawn_where_they_are():
    rng = np.random.default_rng(3)
    truth, mean, sigma = rng.random((3, 7, 6))
    r2 = {name: (0.9, 0.8, 0.95) for name in theta.NAMES}
    figure = plotting.truth_prediction(truth, mean, sigma, suite="Nbody_IllustrisTNG", r2=r2)
    for column, axes in enumerate(figure.axes):
        ((colour, _, x, y, low, high),) = curves(axes)
        np.testing.assert_array_equal(np.stack([x, y]), np.stack([truth[:, column], mean[:, column]]))
        np.testing.assert_allclose(high - low, 2 * sigma[:, column])
        assert (colour == plotting.GREY) == (column > 1)  # astrophysics means nothing without baryons
        diagonal = axes.lines[0]
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
        assert axes.get_title().startswith(theta.LABELS[theta.NAMES[column]]) and "0.900" in axes.get_title()


def test_negative_pixels_have_a_colour_of_their_own():
    original, ringing = densities((2, 1, 8, 8))
    ringing[0, 2, 3] = -1e10
    figure = plotting.cuts([(cases.parse("original"), original), (cases.parse("kmax_1"), ringing)])
    image = figure.axes[1].images[0]
    assert np.argwhere(image.get_array().mask).tolist() == [[2, 3]]
    np.testing.assert_allclose(image.to_rgba(image.get_array())[2, 3, :3], to_rgb(plotting.NEGATIVE))
    assert len(figure.legends) == 1
    assert not plotting.cuts([(cases.parse("original"), original)]).legends


def test_gallery_compares_suites_on_one_scale():
    maps = {"IllustrisTNG": densities((3, 1, 8, 8)), "Nbody_IllustrisTNG": densities((3, 1, 8, 8), seed=1) * 50}
    parameters = np.full((3, 6), [0.1234, 0.9876, 1, 1, 1, 1])
    panels = plotting.gallery(maps, parameters).axes[:6]
    assert len({(axes.images[0].norm.vmin, axes.images[0].norm.vmax) for axes in panels}) == 1
    np.testing.assert_array_equal(panels[4].images[0].get_array(), maps["Nbody_IllustrisTNG"][1, 0])
    assert "0.12" in panels[0].get_title() and "0.99" in panels[0].get_title()


def signed_images(figure):
    return [image for axes in figure.axes for image in axes.images if image.get_cmap().name == SIGNED_MAP]


def test_attributions_keep_their_sign_on_one_scale_centred_on_zero():
    signed = np.linspace(-3, 1, 128).reshape(2, 1, 8, 8)
    stacks = {"saliency": signed, "gradient_shap": signed / 50}
    images = signed_images(plotting_attribution.attribution_maps(densities((1, 8, 8)), stacks))
    assert len(images) == 4 and len({(image.norm.vmin, image.norm.vmax) for image in images}) == 1
    np.testing.assert_array_equal(images[0].get_array().data, signed[0, 0])
    norm = images[0].norm
    assert float(norm(0)) == pytest.approx(0.5) and float(norm(-0.1)) == pytest.approx(1 - float(norm(0.1)))
    assert norm.vmax == -norm.vmin == pytest.approx(np.percentile(np.abs([signed, signed / 50]), 99.5))


def test_the_attributions_of_cut_cases_are_shown_below_their_maps():
    panels = [
        (cases.parse(case), densities((1, 8, 8), seed), np.full((2, 1, 8, 8), seed + 1.0))
        for seed, case in enumerate(SMALL)
    ]
    figure = plotting_attribution.attribution_cuts(panels)
    columns = np.array(figure.axes[:9]).reshape(3, 3).T
    for (case, density, stack), column in zip(panels, columns, strict=True):
        assert column[0].get_title() == case.label
        np.testing.assert_array_equal(column[0].images[0].get_array(), density[0])
        assert [axes.images[0].get_array()[0, 0] for axes in column[1:]] == stack[:, 0, 0, 0].tolist()


def test_each_field_has_rows_panels_and_a_scale_of_density_of_its_own():
    fields, maps = ("Mtot", "Mgas"), densities((2, 8, 8)) * np.array([1, 0.1])[:, None, None]
    signed = np.arange(4.0).reshape(2, 2, 1, 1) * np.ones((8, 8)) + 1  # parameter, then field
    gallery = plotting.gallery({SUITES[0]: maps[None]}, np.full((1, 6), 0.5), fields=fields)
    above, below = (figure.axes for figure in gallery.subfigs)
    for axes, label, density in zip((above, below), ("surface density", "gas density"), maps, strict=True):
        np.testing.assert_array_equal(axes[0].images[0].get_array(), density)
        assert axes[1].get_ylabel().startswith(label) and "M_\\odot" in axes[1].get_ylabel()
    assert above[0].images[0].norm.vmax > 5 * below[0].images[0].norm.vmax
    panels = [(cases.parse(case), maps) for case in SMALL[::2]]
    drawn = {
        "cuts": plotting.cuts(panels, fields=fields),
        "attribution_cuts": plotting_attribution.attribution_cuts([(*one, signed) for one in panels], fields=fields),
        "attribution_maps": plotting_attribution.attribution_maps(maps, {"saliency": signed}, fields=fields),
    }
    for name, figure in drawn.items():
        for channel, part in enumerate(figure.subfigs):
            images = [image for axes in part.axes for image in axes.images]
            shown = [image for image in images if image.get_cmap().name != SIGNED_MAP]
            assert shown and all(np.array_equal(image.get_array(), maps[channel]) for image in shown), name
            found = [image.get_array().data[0, 0] for image in images if image.get_cmap().name == SIGNED_MAP]
            if name != "cuts":
                assert sorted(set(found)) == signed[:, channel, 0, 0].tolist(), name


def test_scales_of_attribution_and_of_cuts_share_their_axis():
    above, _, below, _ = plotting_attribution.attribution_scales(fourier(), rows_of(LARGE), 32.17).axes
    assert above.get_xlim() == below.get_xlim()
    k = fourier()["IllustrisTNG"]["omega_m"]["saliency"]["k"]
    np.testing.assert_allclose(above.lines[0].get_ydata(), np.exp(-k / 5))
    np.testing.assert_allclose(next(curves(below))[2], [1, 5, 10, 20, 30, 40, 50], rtol=0.02)


def test_profiles_around_voids_and_haloes_are_drawn():
    axes = plotting_attribution.attribution_profiles(around()).axes
    table = around()["IllustrisTNG"]["omega_m"]["saliency"]
    for panel, kind in zip(axes, ("voids", "voids", "halos", "halos"), strict=True):
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), table[kind]["profile"][0])


def test_the_sanity_panel_starts_with_the_trained_network_and_shows_r2_however_small():
    cascade, curve = checks()
    drawn, deletion, _ = plotting_attribution.sanity(cascade, curve).axes[:3]
    assert drawn.lines[0].get_ydata()[:2].tolist() == [1, 0.8] and len(drawn.lines[0].get_ydata()) == len(cascade) + 1
    assert deletion.lines[0].get_ydata().tolist() == curve["omega_m"]["deletion"]["saliency"]
    assert deletion.get_ylim()[0] < -8


def test_attribution_against_density_shows_both_averages_and_the_area():
    table = profile()
    bins = {"IllustrisTNG": {"omega_m": {"integrated_gradients": table}}}
    figure = plotting_attribution.attribution_against_density(bins)
    above, below = figure.axes
    np.testing.assert_array_equal(above.lines[0].get_ydata(), table["per_pixel"][0])
    np.testing.assert_allclose(below.lines[0].get_ydata(), 100 * np.array(table["total"][0]))
    (stairs,) = below.findobj(mpl.patches.StepPatch)
    area, edges, _ = stairs.get_data()
    np.testing.assert_allclose(edges, np.logspace(-1.5, 2.5, 17))
    assert np.nansum(area) == pytest.approx(100)


def test_the_network_is_drawn_layer_by_layer():
    layers = [("input", 1, 64, "input"), ("block 1", 8, 32, "conv"), ("FC1", 64, 1, "dense")]
    axes = plotting.architecture(layers).axes[0]
    fronts = [patch.get_path().vertices for patch in axes.patches[::3]]  # front, top and side of each box
    heights = [np.ptp(front[:, 1]) for front in fronts]
    widths = [np.ptp(front[:, 0]) for front in fronts]
    assert len(axes.patches) == 9
    assert heights == sorted(heights, reverse=True) and widths == sorted(widths)
    assert [text.get_text() for text in axes.texts if text.get_text()][:2] == ["input", r"$1\times64^2$"]


def test_the_tuning_figures_show_every_trial_and_every_search():
    history, shares = plotting_tuning.tuning({"IllustrisTNG": [study(50)]}).axes
    complete, pruned = (line.get_ydata() for line in history.lines[:2])
    assert len(complete) == 13 and min(complete) == 0 and len(pruned) == 37
    assert shares.lines[0].get_ydata() == [60]
    axes = plotting_tuning.tuning_epochs(searches()).axes[0]
    ends = [line.get_ydata()[-1] for line in axes.lines]
    assert len(ends) == 12 and ends[:2] == [-9.2, -9.2]
    assert [line.get_xdata()[-1] for line in axes.lines[::6]] == [720, 102]
    (band,) = axes.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((-9.4, -9.2)), "the ends of the full ones"
