"""The numbers of the appendices: on the simulator, and on the recorded searches for hyperparameters."""

import numpy as np

from camelsight.report.tables import NOT_AVAILABLE, suite_label
from camelsight.universe import validation


def universe(record):
    """What the appendix on the twin quotes; not available where maps are not simulated."""
    names = (
        "NUniverseSeeds",
        "ConvergenceWorst",
        "KHalfNyquist",
        "KResolved",
        "TwinOverHMCodeLow",
        "TwinOverHMCodeHigh",
    )
    names += ("SuppressionTNG", "SuppressionSIMBA", "TwinCorrelationHalf", "TwinCorrelationOne", "TwinCorrelationTwo")
    if "gravity" not in record:
        return dict.fromkeys(names, NOT_AVAILABLE)
    gravity = {name: np.array(value) for name, value in record["gravity"].items()}
    k, half = gravity["k"], float(gravity["k_half_nyquist"])
    off = np.abs(gravity["power"][0] / gravity["converged"] - 1)[k <= half]
    share = gravity["power"].mean(axis=0) / gravity["hmcode"]
    values = [
        len(gravity["power"]),
        f"{100 * off.max():.0f}",
        f"{half:.1f}",
        f"{float(gravity['k_resolved']):.1f}",
        f"{share[(k > 0.5) & (k < 1.5)].mean():.2f}",
        f"{np.interp(half, k, share):.2f}",
    ]
    for suite in ("IllustrisTNG", "SIMBA"):
        ratio = np.mean(record["baryons"][suite]["fiducial"], axis=0)
        values.append(f"{100 * (1 - ratio[(k > 9) & (k < 11)].mean()):.0f}")
    twin = record["twin"]["IllustrisTNG"]
    means = validation.by_scale(twin["k"], twin["correlation"])
    values += [f"{mean:.3f}" if np.isfinite(mean) else NOT_AVAILABLE for mean in means]
    return dict(zip(names, values, strict=True))


def tuning(record):
    """What the appendix says of the recorded searches: how many trials and epochs, the best losses, where and when."""
    about, numbers = record["about"], {}
    for kind in ("full", "halving"):
        searches = [one for one in record["searches"] if one["kind"] == kind and one["best"]]
        for name, values in (
            ("Trials", [str(one["trials"]) for one in searches]),
            ("Epochs", [str(one["epochs"]) for one in searches]),
            ("Losses", [f"{one['best'][-1][1]:.2f}" for one in searches]),
            ("Again", [f"{np.mean(one['again']):.2f}" for one in searches if one["again"]]),
        ):
            numbers[f"Searched{kind.capitalize()}{name}"] = ", ".join(values) or NOT_AVAILABLE
        unfinished = sum(not one["finished"] for one in searches)
        share = "" if unfinished == len(searches) else f"{unfinished} of {len(searches)} "
        numbers[f"Searched{kind.capitalize()}Unfinished"] = f" ({share}unfinished)" if unfinished else ""
    again = [one["again"] for one in record["searches"] if one["again"]]
    return numbers | {
        "SearchedAgain": len(again[0]) if again else NOT_AVAILABLE,
        "SearchedScatter": f"{np.sqrt(np.mean(np.var(again, axis=1, ddof=1))):.2f}" if again else NOT_AVAILABLE,
        "SearchedTrials": about["trials"],
        "SearchedEpochs": about["epochs"],
        "SearchedSuite": suite_label(about["suite"]),
        "SearchedOn": f"{about['hardware']}, {about['date']}, commit {about['commit'][:12]}",
    }
