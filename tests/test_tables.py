import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelsight.ground import theta
from camelsight.report import appendix, interpretation, tables

COLUMNS = ("suite", "case", "parameter", "r2", "low", "high", "n_maps", "n_simulations")
THRESHOLDS = st.from_regex(r"[1-9][0-9]{0,2}(\.[0-9]{1,2})?(e[0-9]{1,2})?", fullmatch=True)
CUTS = st.one_of(
    THRESHOLDS.map("kmax_{}".format),
    st.tuples(st.sampled_from(("max", "min")), THRESHOLDS, st.sampled_from(("clamp", "random"))).map("_".join),
)
CASES = st.one_of(st.just("original"), st.lists(CUTS, min_size=1, max_size=2).map("__".join))
RESULTS = st.tuples(
    st.sampled_from(("r2", "rmse", "mean_sigma")),
    st.sampled_from(theta.SUITES),
    CASES,
    st.sampled_from(theta.NAMES),
)


def row(suite="IllustrisTNG", case="original", parameter="omega_m", r2=0.953, low=0.931, high=0.962):
    return {
        "suite": suite, "case": case, "parameter": parameter, "r2": r2, "low": low, "high": high,
        "n_maps": 225, "n_simulations": 15,
    }  # fmt: skip


def cells(line):
    return [cell.strip() for cell in line.removesuffix(r"\\").split("&")]


def test_latex_row_is_value_with_interval():
    text = tables.r2_latex([row(), row(parameter="A_AGN1", r2=-0.02, low=-0.11, high=0.08)])
    line = next(line for line in text.splitlines() if "original" in line)
    assert cells(line) == [
        "IllustrisTNG", "original", "$0.95^{+0.01}_{-0.02}$", "--", "--", "$-0.02^{+0.10}_{-0.09}$", "--", "--",
    ]  # fmt: skip


def test_narrow_intervals_get_a_third_digit():
    text = tables.r2_latex([row(r2=0.9942, low=0.9921, high=0.9953)])
    assert "$0.994^{+0.001}_{-0.002}$" in text


def test_a_value_outside_its_interval_has_no_negative_error():
    assert "$0.90^{+0.00}_{-0.10}$" in tables.r2_latex([row(r2=0.9, low=0.8, high=0.88)])


def test_parameters_that_mean_nothing_get_a_dash():
    rows = [row("Nbody_IllustrisTNG", parameter=name) for name in theta.NAMES]
    latex = next(line for line in tables.r2_latex(rows).splitlines() if "original" in line)
    assert cells(latex)[2:] == ["$0.95^{+0.01}_{-0.02}$"] * 2 + ["--"] * 4
    markdown = tables.r2_markdown(rows).splitlines()[2]
    assert [cell.strip() for cell in markdown.split("|")[3:-1]] == ["0.95 [0.93, 0.96]"] * 2 + [tables.MISSING] * 4


def test_an_undefined_value_is_a_dash_and_not_nan():
    text = tables.r2_latex([row(r2=float("nan"), low=float("nan"), high=float("nan")), row(parameter="sigma_8")])
    assert "nan" not in text and "$0.95^{+0.01}_{-0.02}$" in text


def test_one_line_per_suite_and_case_with_rules_of_booktabs():
    suites, ids = ("IllustrisTNG", "Nbody_IllustrisTNG"), ("original", "kmax_10", "max_1e12_clamp")
    rows = [row(suite, case, name) for case in ids for suite in suites for name in theta.NAMES]
    lines = tables.r2_latex(rows).splitlines()
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [cells(line)[0] for line in lines if line.endswith(r"\\")] == [
        "suite", "IllustrisTNG", "", "", r"\addlinespace N-body (IllustrisTNG)", "", "",
    ]  # fmt: skip
    assert len(tables.r2_markdown(rows).splitlines()) == 2 + 6


def test_csv_keeps_every_row_and_digit():
    rows = [row(r2=1 / 3), row("Nbody_IllustrisTNG", parameter="A_SN1", r2=-0.001)]
    read = list(csv.DictReader(tables.csv_text(rows, COLUMNS).splitlines()))
    assert tuple(read[0]) == COLUMNS
    assert float(read[0]["r2"]) == 1 / 3 and read[1]["parameter"] == "A_SN1"


def test_csv_misses_no_column():
    with pytest.raises(KeyError, match="n_maps"):
        tables.csv_text([{key: value for key, value in row().items() if key != "n_maps"}], COLUMNS)


def test_parameters_have_the_ranges_of_the_suite():
    lines = [
        cells(line)
        for line in tables.parameters_latex("IllustrisTNG", "Nbody_IllustrisTNG").splitlines()
        if line.endswith(r"\\")
    ]
    assert lines[1] == [r"$\Omega_{\rm m}$", "0.1--0.5", "uniform", "matter density"]
    assert lines[6][:3] == [r"$A_{\rm AGN2}$", "0.5--2", "log-uniform"]
    assert "0.25--4" in tables.parameters_latex("Astrid").splitlines()[-3]


def test_a_range_of_its_own_is_named_and_what_has_no_meaning_is_a_dash():
    both = tables.parameters_latex("Nbody_IllustrisTNG", "IllustrisTNG", "SIMBA", "Astrid").splitlines()
    assert cells(both[-3])[:3] == [r"$A_{\rm AGN2}$", "0.5--2 (Astrid: 0.25--4)", "log-uniform"]
    assert cells(both[-4])[1] == "0.5--2"
    gravity = tables.parameters_latex("Nbody_IllustrisTNG").splitlines()
    assert [cells(line)[1:3] for line in gravity[-7:-2]] == [["0.6--1", "uniform"], *[["--", "--"]] * 4]


@pytest.mark.parametrize(
    "parts, name",
    [
        (("r2", "IllustrisTNG", "original", "omega_m"), "RtwoIllustrisTNGOriginalOmegaM"),
        (("r2", "Nbody_SIMBA", "kmax_10", "A_SN1"), "RtwoNbodySIMBAKmaxOneZeroASNOne"),
        (("kmax_2.5",), "KmaxTwoPointFive"),
        (("min_2e11_random",), "MinTwoeoneOneRandom"),
        (("kmax_1__max_5e10_clamp",), "KmaxOneAndMaxFiveeoneZeroClamp"),
    ],
)
def test_macro_names(parts, name):
    assert tables.macro_name(*parts) == name


@given(RESULTS, RESULTS)
def test_different_results_have_different_macros(first, second):
    names = tables.macro_name(*first), tables.macro_name(*second)
    assert all(name.isascii() and name.isalpha() for name in names)
    assert (names[0] == names[1]) == (first == second)


@pytest.mark.parametrize("parts", [(), ("",), ("r2", "a-b"), ("σ_8",), ("_x",), ("x_",), ("a___b",), ("a b",)])
def test_macro_names_from_anything_else_are_refused(parts):
    with pytest.raises(ValueError, match="expected"):
        tables.macro_name(*parts)


def test_macros_are_escaped_new_commands():
    text = tables.macros({"Profile": "my_50%_{run}", ("r2", "SIMBA", "kmax_1"): "0.95"})
    assert text == ("\\newcommand{\\Profile}{my\\_50\\%\\_\\{run\\}}\n\\newcommand{\\RtwoSIMBAKmaxOne}{0.95}\n")


@pytest.mark.parametrize("numbers", [{"R2": "1"}, {"": "1"}, {"Rtwo": "1", ("r2",): "2"}])
def test_macros_with_impossible_or_repeated_names_are_refused(numbers):
    with pytest.raises(ValueError, match="expected"):
        tables.macros(numbers)


@given(st.text(alphabet=st.sampled_from("\\{}$&#%_^~ab1 "), max_size=12))
def test_escaped_text_has_no_active_character(text):
    """Undoing the escapes gives the text back; what is left between them is plain."""
    escaped = tables.escape(text)
    undo = {escape: character for character, escape in tables._SPECIAL.items()}
    plain, rest = "", escaped
    while rest:
        escape = next((e for e in sorted(undo, key=len, reverse=True) if rest.startswith(e)), None)
        assert escape or rest[0] not in tables._SPECIAL
        plain, rest = plain + (undo[escape] if escape else rest[0]), rest[len(escape or rest[0]) :]
    assert plain == text


def test_statistics_have_dashes_for_what_is_not_published():
    known = {"min": 4.665e9, "max": 2.8518e15, "mean": 4e11, "std": 3.6e12}
    text = tables.statistics_latex([("twin", known | {"log10_mean": 11.1, "log10_std": 0.49}), ("published", known)])
    twin, published = (cells(line) for line in text.splitlines() if line.strip().startswith(("twin", "published")))
    assert published[1] == r"$4.665\times10^{9}$" and published[5] == "$9.00$" and published[6:] == ["--", "--"]
    assert twin[:6] == ["twin", *published[1:6]] and twin[6:] == ["$11.100$", "$0.490$"]


def attributed(**changes):
    one = {"per_pixel_ratio": [1.5, 1.25, 2.0], "void_share": [0.5, 0.4, 0.7], "completeness_p95": 0.0042}
    return one | changes


def test_attributions_in_latex():
    record = {"saliency": attributed(completeness_p95=None), "integrated_gradients": attributed()}
    found = {suite: {"omega_m": record} for suite in ("IllustrisTNG", "Nbody_IllustrisTNG")}
    text = tables.attribution_latex(found)
    lines = [line.split("&") for line in text.splitlines() if "IG" in line or "Saliency" in line]
    cells = [cell.strip(" \\") for cell in lines[1][2:]]
    assert cells == ["IG", "$1.50^{+0.50}_{-0.25}$", "$50.0^{+20.0}_{-10.0}$", "0.4"]
    assert len(lines) == 4 and "--" in lines[0][-1] and r"\addlinespace" in lines[2][0]


def test_a_check_that_fails_is_bold_and_one_that_was_not_run_is_a_dash():
    checks = {"deletion": (0.1, True), "seeds": (0.2, False)}
    text = interpretation.sanity_latex({"omega_m": {"saliency": checks}})
    rows = {line.split("&")[0].strip(): line for line in text.splitlines() if "&" in line}
    assert "0.10" in rows["deletion"] and "textbf" not in rows["deletion"] and "$> 0$" in rows["deletion"]
    assert r"\textbf{0.20}" in rows["seeds"] and "--" in rows["label shuffled"]


@pytest.mark.parametrize(
    ("finished", "said"),
    [((True, True), ""), ((False, False), " (unfinished)"), ((True, False), " (1 of 2 unfinished)")],
)
def test_searches_that_did_not_come_to_their_end_are_called_unfinished(finished, said):
    about = {"trials": 36, "epochs": 20, "suite": "IllustrisTNG", "hardware": "", "date": "", "commit": ""}
    search = {"kind": "full", "trials": 3, "epochs": 60, "best": [[1, -2.0]], "again": [-2.0, -1.0]}
    searches = [search | {"finished": one} for one in finished]
    numbers = appendix.tuning({"about": about, "searches": searches})
    assert numbers["SearchedFullUnfinished"] == said and numbers["SearchedHalvingUnfinished"] == ""
    assert numbers["SearchedFullTrials"] == "3, 3" and numbers["SearchedTrials"] == 36
    assert numbers["SearchedFullAgain"] == "-1.50, -1.50" and numbers["SearchedScatter"] == "0.71"


def test_curves_for_dvc_are_of_single_cuts_in_the_order_of_their_thresholds():
    values = {"kmax_10": 0.9, "kmax_2": 0.5, "max_1e12_clamp": 0.7, "min_1e12_random": 0.6, "original": 0.95}
    rows = [
        row(case=case, parameter=name, r2=value - (name == "sigma_8") / 10)
        for case, value in (values | {"smooth_2": 0.1, "kmax_2__max_1e12_clamp": 0.2}).items()
        for name in ("omega_m", "sigma_8", "A_SN1")
    ]
    assert tables.r2_curves(rows) == {
        "r2_kmax/IllustrisTNG.csv": [
            {"k_max": 2.0, "omega_m": 0.5, "sigma_8": 0.4},
            {"k_max": 10.0, "omega_m": 0.9, "sigma_8": 0.8},
        ],
        "r2_threshold/IllustrisTNG_max_clamp.csv": [{"threshold": 1e12, "omega_m": 0.7, "sigma_8": pytest.approx(0.6)}],
        "r2_threshold/IllustrisTNG_min_random.csv": [{"threshold": 1e12, "omega_m": 0.6, "sigma_8": 0.5}],
    }
