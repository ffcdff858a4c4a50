import numpy as np
import pytest

from camelsight.analysis import attributions
from camelsight.interpretation import attribution, sanity
from camelsight.report import study


def test_sides_by_hand():
    """Three pixels below the mean with 1 each, one above with 6: six times as much per pixel, a third below."""
    ratio, share = sanity.sides(np.array([[[1.0, -1], [1, -6]]]), np.array([[[0.5, 0.2], [0.9, 3]]]))
    assert ratio == pytest.approx(6) and share == pytest.approx(1 / 3)
    ratio, share = sanity.sides(np.ones((2, 2, 2)), np.full((2, 2, 2), 0.5))
    assert np.isnan(ratio).all() and (share == 1).all()


def one(ratio, share):
    return {"ratio": ratio, "share": share, "area": [0.8] * len(ratio)}


def baselines():
    found = {"mean": one([0.5, 0.7], [0.9, 0.8]), "noise": one([2.0, 4.0], [0.05, 0.07])}
    return {
        name: {parameter: dict.fromkeys(study.METHODS, by) for parameter in ("omega_m", "sigma_8")}
        for name, by in found.items()
    }


def averaged(**kinds):
    return {
        kind: {check: {"omega_m": {"saliency": value}} for check, value in by.items()} for kind, by in kinds.items()
    }


def test_the_text_names_the_baselines_for_which_each_half_of_the_statement_holds():
    numbers = study.numbers(baselines(), averaged(nothing={}, symmetries={}))
    assert numbers["DenserForIGOmegaM"] == "noise alone" and numbers["MuchBelowForShapSigmaEight"] == "mean alone"
    both = baselines() | {"mean": baselines()["noise"]}
    assert study.numbers(both, averaged(nothing={}))["DenserForIGOmegaM"] == "every baseline"
    assert study.numbers(both, averaged(nothing={}))["MuchBelowForIGOmegaM"] == "no baseline"
    assert (numbers["BaselineCount"], numbers["BaselineMaps"], numbers["HasNetworks"]) == (2, 2, 0)
    text = study.baselines_latex(baselines())
    assert "$0.60$ $[0.50,0.70]$" in text and "$6$ $[5,7]$" in text and text.count("below") == 4


def test_an_average_mends_what_fails_without_it_and_passes_with_it():
    found = averaged(
        nothing={"randomisation": 0.4, "methods": 0.3, "methods_top": 0.3},
        networks={"randomisation": 0.1, "methods": 0.4, "methods_top": 0.2},
        symmetries={"randomisation": 0.4, "methods": 0.3, "methods_top": 0.3},
    )
    assert study.mended(found, "networks") == ["randomisation of saliency for omega_m"]
    assert study.mended(found, "networks", backwards=True) == ["methods top of saliency for omega_m"]
    numbers = study.numbers(baselines(), found)
    assert numbers["AveragedSymmetries"] == "every check comes out as without"
    assert numbers["AveragedNetworks"] == (
        "1 of the checks that failed pass (randomisation of saliency for omega_m), and 1 of those that passed fail "
        "(methods top of saliency for omega_m)"
    )
    assert study.mended(found, "symmetries") == study.mended({"nothing": found["nothing"]}, "networks") == []


def test_methods_that_agree_but_for_one_map_are_told_so():
    rng = np.random.default_rng(0)
    field, other = rng.random((2, 1, 8, 8)), rng.random((2, 1, 8, 8))
    values = dict.fromkeys(attribution.METHODS, field) | {"saliency": other}
    found = attributions.agreement(values, ["omega_m"])["omega_m"]
    crossed = sanity.rank_correlation(field[:, 0], other[:, 0]).mean()
    assert found["saliency"]["methods"] == pytest.approx(crossed)
    assert found["gradient_shap"]["methods"] == pytest.approx((1 + crossed) / 2)
