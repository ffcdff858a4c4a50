import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from camelsight.analysis import dataset
from camelsight.ground import theta
from camelsight.pipeline import params
from camelsight.report import plotting_robustness, robustness, tables
from camelsight.stages import transfer


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


def seeded(*r2):
    return {"rows": [{"setting": f"seed {n}", "metrics": measured(value)} for n, value in enumerate(r2)]}


def test_the_spread_of_seeds_is_a_standard_deviation():
    numbers = robustness.numbers(params.EXPERIMENTS["transfer"], {"seeds": seeded(0.9, 0.95, 0.85)}, SUITES)
    assert (numbers["SeedCount"], numbers["SeedDeviationOmegaM"]) == (3, "0.050")
    assert numbers["ChoicesMatterOmegaM"] == numbers["ChoicesDoNotOmegaM"] == "nothing"


def test_a_choice_matters_beyond_its_paired_interval_and_the_spread_of_seeds():
    def record(*choices):
        rows = [{"setting": "eight symmetries", "metrics": measured()}]
        for setting, *difference in choices:
            difference = dict.fromkeys(theta.NAMES, difference)
            rows.append({"setting": setting, "metrics": measured(), "difference": difference})
        return {"rows": rows}

    choices = [("a", -0.03, -0.05, -0.01), ("b", -0.03, -0.07, 0.01), ("c", 0.015, 0.01, 0.02), ("d", *[np.nan] * 3)]
    records = {"augmentation": record(*choices), "seeds": seeded(0.90, 0.91, 0.92)}
    numbers = robustness.numbers(params.EXPERIMENTS["transfer"], records, SUITES)
    assert (numbers["ChoicesMatterOmegaM"], numbers["ChoicesDoNotSigmaEight"]) == ("a", "b; c; d")
    del records["seeds"]
    assert robustness.numbers(params.EXPERIMENTS["transfer"], records, SUITES)["ChoicesMatterOmegaM"] == "n/a"


def test_the_text_on_other_suites_follows_from_those_that_were_tested():
    alone = {"suites": SUITES[:1], "rows": MATRIX["rows"][:1]}
    for record, hydro, crossed in ((MATRIX, 1, 1), (alone, 0, 0)):
        numbers = robustness.numbers(params.EXPERIMENTS["transfer"], {"suites": record}, SUITES[:1])
        assert (numbers["HasHydro"], numbers["HasCrossed"]) == (hydro, crossed)


def test_values_that_are_not_finite_are_dashes():
    metrics = measured(np.nan) | {"chi2": dict.fromkeys(theta.NAMES, [np.inf] * 3)}
    text = robustness.transfer_latex({"rows": [{"train": SUITES[0], "test": SUITES[0], "metrics": metrics}]})
    assert r"$\infty$" in text and "--" in text


def test_normalisation_names_the_suite():
    rows = [{"setting": "test maps", "test": suite, "metrics": measured()} for suite in SUITES]
    settings = [row["setting"] for row in robustness.generalisation_rows({"normalisation": {"rows": rows}})]
    assert settings[::6] == [f"{tables.suite_label(suite)} scaled by test maps" for suite in SUITES]
    assert np.unique(settings).size == 3


def part_of(simulation):
    """Maps of these simulations, whose targets are their numbers."""
    count = len(simulation)
    return dataset.Part(
        simulation, simulation, np.zeros((count, 6)), torch.zeros(count, 1, 1, 1), torch.zeros(count, 6)
    )


@pytest.fixture
def profile():
    return params.load("profiles/smoke.yaml")


def test_leaking_networks_are_tested_on_simulations_that_they_know_and_on_others(monkeypatch, profile):
    """Targets are the number of the simulation, which what is fitted and what is measured gives away."""
    known, trained = {"train": range(16), "valid": range(16, 18), "test": range(18, 20)}, []

    def load(params, suite, case, names, **more):
        return {name: part_of(np.repeat(known[name], 15)) for name in names}

    def fit(params, experiment, what, train, valid, **more):
        trained.append(set(train.simulation))
        assert len(train.index) + 2 * len(valid.index) in (18 * 15, 2 * 15)
        return trained[-1]

    def measured_on(params, net, part, *, reference=None):
        return {"metrics": {}, "learned": np.isin(part.simulation, list(net)), "paired": reference is not None}

    monkeypatch.setattr(dataset, "load", load)
    monkeypatch.setattr(transfer, "_fit", fit)
    monkeypatch.setattr(transfer, "_measured", measured_on)
    monkeypatch.setattr(transfer, "_predictions", lambda *args: {})
    monkeypatch.setattr(transfer, "_metrics", lambda *args: {"metrics": {}})
    monkeypatch.setattr(transfer.networks, "trained", lambda *args: (None, None))
    record, _ = transfer.leakage(profile)
    rows = {row["kind"]: row for row in record["rows"]}
    assert list(rows) == ["clean", "all apparent", "all true", "few apparent", "few true"]
    for kind in ("all", "few"):
        assert rows[f"{kind} apparent"]["learned"].all() and not rows[f"{kind} apparent"]["paired"]
        assert not rows[f"{kind} true"]["learned"].any() and rows[f"{kind} true"]["paired"]
    assert [len(one) for one in trained] == [18, 2]


@pytest.mark.parametrize(("available", "expected"), [
    (128, [(120, 1), (30, 4), (10, 12), (120, 4), (120, 12)]),
    (900, [(900, 1), (225, 4), (75, 12), (900, 4), (900, 12)]),
    (4, [(4, 1), (1, 4), (4, 4)]),
])  # fmt: skip
def test_a_learning_curve_has_the_same_number_of_maps_along_it(monkeypatch, profile, available, expected):
    def part(n):
        index = np.arange(15 * n)
        return dataclasses.replace(part_of(index // 15), index=index)

    sizes = []

    def fit(params, experiment, what, train, valid, **more):
        _, maps = np.unique(train.simulation, return_counts=True)
        assert len(set(maps)) == 1 and len(set(train.index)) == len(train.index)
        sizes.append((len(maps), int(maps[0])))

    references = []
    monkeypatch.setattr(dataset, "load", lambda *args: {"train": part(available), "valid": part(1), "test": part(1)})
    monkeypatch.setattr(dataset, "splits", lambda params: {"train": np.arange(available)})
    monkeypatch.setattr(transfer, "_fit", fit)
    monkeypatch.setattr(transfer, "_predictions", lambda *args: len(sizes))
    monkeypatch.setattr(transfer, "_metrics", lambda *args, reference: references.append(reference) or {})
    transfer.simulations(profile)
    assert sizes == expected and references == [None] + [1] * (len(expected) - 1)


def test_a_row_has_the_paired_difference_from_the_reference(profile):
    rng = np.random.default_rng(3)
    simulation, truth = np.repeat(np.arange(8), 15), np.repeat(rng.random((8, 6)), 15, axis=0)

    def predicted(noise):
        mean = truth + noise * rng.standard_normal(truth.shape)
        return {"truth": truth, "mean": mean, "sigma": np.full_like(truth, 0.1), "simulation": simulation}

    good, bad = predicted(0.01), predicted(0.5)
    row = transfer._metrics(profile, bad, reference=good)
    for name in theta.NAMES:
        value, low, high = row["difference"][name]
        assert low < value < high < 0
        assert value == pytest.approx(
            row["metrics"]["r2"][name][0] - transfer._metrics(profile, good)["metrics"]["r2"][name][0]
        )
        assert transfer._metrics(profile, good, reference=good)["difference"][name] == [0, 0, 0]


def test_a_value_below_the_axis_is_drawn_at_its_edge():
    figure = plotting_robustness.generalisation({"leakage": {"good": measured(0.9), "bad": measured(-50.0)}}, [])
    (axes,) = figure.axes
    marks = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    edge, _ = axes.get_xlim()
    assert sorted(marks) == [edge, edge, 0.9, 0.9] and edge > -1.1
    plt.close(figure)
