import numpy as np
import pytest

from camelsight import params, theta
from camelsight.report import robustness, tables


def measured(r2=0.9, error=0.034, bias=0.01):
    by = {"r2": r2, "relative_error": error, "bias": bias, "bias_slope": -0.2, "chi2": 1.3}
    return {key: {name: [value, value - 0.01, value + 0.01] for name in theta.NAMES} for key, value in by.items()}


SUITES = ["IllustrisTNG", "Nbody_IllustrisTNG", "SIMBA"]
MATRIX = {
    "suites": SUITES,
    "rows": [{"train": a, "test": b, "metrics": measured(0.1 * i + j)} for i, a in enumerate(SUITES)
             for j, b in enumerate(SUITES)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("train", "test", "astrophysical"),
    [
        ("IllustrisTNG", "IllustrisTNG", True),
        ("IllustrisTNG", "SIMBA", False),  # the same names, another model
        ("IllustrisTNG", "Nbody_IllustrisTNG", False),
        ("Nbody_SIMBA", "SIMBA", False),
    ],
)
def test_feedback_parameters_compare_within_a_model_alone(train, test, astrophysical):
    assert robustness.comparable(train, test).tolist() == [True, True] + [astrophysical] * 4


def test_rows_of_the_matrix_are_empty_where_nothing_compares():
    rows = robustness.transfer_rows(MATRIX)
    assert len(rows) == 9 * 6
    across = [row for row in rows if (row["train"], row["test"]) == ("IllustrisTNG", "SIMBA")]
    assert [row["r2"] for row in across] == [2.0, 2.0, "", "", "", ""]
    assert [row["low"] for row in across[:2]] == [1.99] * 2 and across[0]["bias"] == 0.01
    tables.csv_text(rows, robustness.TRANSFER_COLUMNS)


def test_the_table_of_the_matrix_has_dashes_for_them():
    text = robustness.transfer_latex(MATRIX)
    lines = [line for line in text.splitlines() if "$" in line][1:]
    assert len(lines) == 9 and [line.count("--") for line in lines] == [0, 4, 4, 4, 4, 4, 4, 4, 0]


def test_an_r2_far_below_zero_is_given_as_a_power_of_ten():
    record = {"rows": [{"probe": "none", "metrics": measured()}, {"probe": "kmax_1", "metrics": measured(-86066.4)}]}
    text = robustness.probes_latex(record, {"kmax_1": measured(0.7)})
    assert r"$-9\times10^{4}$" in text and "$0.70^{+0.01}_{-0.01}$" in text
    rows = robustness.probe_rows(record, {"kmax_1": measured(0.7)})
    assert {row["probe"]: row["r2"] for row in rows} == {"none": 0.9, "kmax_1": -86066.4, "kmax_1, trained anew": 0.7}


def test_numbers_have_the_same_names_whatever_was_run():
    names = params.EXPERIMENTS["transfer"]
    none, matrix = (robustness.numbers(names, records, SUITES) for records in ({}, {"suites": MATRIX}))
    assert set(none) == set(matrix)
    assert none["HasTransfer"] == 0 and matrix["HasTransfer"] == 1 and matrix["Has", "transfer", "suites"] == 1
    assert none["TransferAcrossErrorOmegaM"] == "n/a" and matrix["TransferAcrossErrorOmegaM"] == "3.4"
    assert matrix["TransferAcrossBiasSigmaEight"] == "+0.010" and matrix["TransferHydro"] == "SIMBA"
    assert matrix["TransferToNbodyOmegaM"] == "1.00" and matrix["TransferFromNbodyOmegaM"] == "0.10"
    tables.macros(none), tables.macros(matrix)


def test_spread_of_seeds_stands_beside_the_interval_over_simulations():
    rows = [{"setting": f"seed {n}", "metrics": measured(r2)} for n, r2 in enumerate((0.9, 0.95, 0.87))]
    numbers = robustness.numbers(params.EXPERIMENTS["transfer"], {"seeds": {"rows": rows}}, SUITES)
    assert (numbers["SeedCount"], numbers["SeedSpreadOmegaM"], numbers["SeedIntervalOmegaM"]) == (3, "0.080", "0.020")


def test_normalisation_names_the_suite():
    rows = [{"setting": "test maps", "test": suite, "metrics": measured()} for suite in SUITES]
    settings = [row["setting"] for row in robustness.generalisation_rows({"normalisation": {"rows": rows}})]
    assert settings[::6] == [f"{tables.suite_label(suite)} scaled by test maps" for suite in SUITES]
    assert np.unique(settings).size == 3
