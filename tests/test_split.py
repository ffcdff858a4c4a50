import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camelsight.ground import split
from camelsight.inference import metrics
from conftest import global_generators_left_alone

TRAIN_START = [507, 818, 452, 368, 242]
VALID_START = [418, 288, 648, 166, 595]
TEST = [
    264, 209, 316, 896, 513, 313, 534, 829, 319, 7, 393, 141, 86, 864, 478, 503, 753, 215, 580, 562, 398, 925, 668, 490,
    252, 907, 468, 914, 357, 254, 276, 178, 281, 390, 508, 749, 583, 972, 129, 144, 960, 847, 645, 715, 905, 767, 72,
    908, 235, 37,
]  # fmt: skip


def test_a_thousand_simulations_and_seed_one_are_the_published_split():
    parts = split.by_simulation(1000)
    assert {name: len(part) for name, part in parts.items()} == {"train": 900, "valid": 50, "test": 50}
    assert parts["train"][:5].tolist() == TRAIN_START
    assert parts["valid"][:5].tolist() == VALID_START
    assert parts["test"].tolist() == TEST


@given(st.integers(3, 300), st.integers(0, 2**32 - 1))
def test_the_parts_are_a_partition(n, seed):
    parts = split.by_simulation(n, seed=seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(n))
    assert all(len(part) for part in parts.values())


def test_the_global_generator_is_left_alone():
    with global_generators_left_alone():
        split.by_simulation(1000)


def test_maps_of_a_simulation_stay_together():
    assert split.map_indices([2, 0]).tolist() == [*range(30, 45), *range(15)]


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match=r"2 \+ 2 of 4"):
        split.by_simulation(4, fractions=(0.02, 0.49, 0.49))


@pytest.mark.parametrize(("n", "fractions"), [(2, (0.9, 0.05, 0.05)), (10, (0.9, 0.1, 0.1)), (10, (1.0, 0.0, 0.0))])
def test_an_impossible_split_is_refused(n, fractions):
    with pytest.raises(ValueError, match="three positive fractions"):
        split.by_simulation(n, fractions=fractions)


def fingerprints(simulations=300, pixels=1000):
    """Maps that are a pattern of their simulation and noise, and a parameter that has nothing to do with either."""
    rng = np.random.default_rng(5)
    simulation = np.repeat(np.arange(simulations), 15)
    maps = rng.standard_normal((simulations, pixels))[simulation] + 0.3 * rng.standard_normal((len(simulation), pixels))
    return maps, rng.standard_normal((simulations, 1))[simulation]


def ridge_r2(maps, truth, train, test, penalty=1000):
    squares = maps[train].T @ maps[train] + penalty * np.eye(maps.shape[1])
    weights = np.linalg.solve(squares, maps[train].T @ truth[train])
    return metrics.r2(truth[test], maps[test] @ weights)[0]


def test_a_split_at_random_leaks_the_fingerprints_of_simulations():
    """With nothing to learn, R² is near one where siblings of the test maps were learned, and else near zero."""
    maps, truth = fingerprints()
    leaky = split.at_random(len(maps), 180, np.random.default_rng(6))
    assert sorted(np.concatenate(list(leaky.values()))) == list(range(len(maps)))
    assert len(leaky["valid"]) == len(leaky["test"]) == 180
    assert ridge_r2(maps, truth, leaky["train"], leaky["test"]) > 0.9
    clean = split.by_simulation(300, fractions=(0.7, 0.1, 0.2))
    clean = {name: split.map_indices(simulations) for name, simulations in clean.items()}
    assert abs(ridge_r2(maps, truth, clean["train"], clean["test"])) < 0.15


PAPER = {int(index) // 15 for index in split.SHOWN.values()}


@pytest.mark.parametrize(("n", "fractions"), [(160, (0.8, 0.075, 0.125)), (8, (0.5, 0.25, 0.25)), (3, (0.4, 0.3, 0.3))])
def test_a_part_of_a_twin_is_the_first_of_the_released_one_with_what_the_paper_shows(n, fractions):
    whole, parts = split.by_simulation(1000), split.of_hypercube(n, fractions=fractions)
    assert sum(map(len, parts.values())) == n
    for name, part in parts.items():
        shown = [one for one in whole[name] if one in PAPER][: len(part)]
        first = [one for one in whole[name] if one not in PAPER][: len(part) - len(shown)]
        assert part.tolist() == [one for one in whole[name] if one in first or one in shown]
    assert parts["test"][0] == 264 and 0 in parts["train"]


def test_a_whole_twin_has_the_released_split_and_other_fractions_of_it_overlap_nowhere():
    for name, part in split.of_hypercube(1000).items():
        np.testing.assert_array_equal(part, split.by_simulation(1000)[name])
    parts = split.of_hypercube(900, fractions=(0.5, 0.25, 0.25))
    assert [len(part) for part in parts.values()] == [450, 225, 225]
    assert len(set(np.concatenate(list(parts.values())).tolist())) == 900
