"""The verdict: what a run gave, beside what is published and beside the run's own claims about itself.

Rows go in and verdicts come out; nothing here reads a file. A row that was not run never reads as passed, and a twin of
CAMELS decides only what it shares with CAMELS.
"""

import math
import re
from pathlib import PurePath

BEYOND = "beyond this tier"  # the group of what only a higher tier can tell
# What is taken on trust below a tier, beside the network that a tier trains anew, and what that takes.
TRUSTED = (
    ("predictions", 1, "predictions of the given weights"),
    ("cuts", 1, "records of the cuts"),
    ("attributions", 3, "attributions and their statistics"),
    ("sanity", 3, "checks of the attributions"),
    ("trainings", 3, "weights that the stated training gives, and its history"),
    ("searches", 3, "searches for hyperparameters"),
    ("spectra", 3, "power spectra of the simulations"),
    ("experiments", 3, "experiments on robustness"),
)
FORGERS = (  # what a forger could still have done, tier by tier
    "invented predictions, attributions and trainings that agree with one another",
    "trained the weights otherwise than stated, on the test maps for one, and invented their histories, the checks of "
    "attributions, and attributions outside the sample",
    "trained every network but one otherwise than stated, and invented the checks of attributions, and attributions "
    "outside the sample",
    "changed the data or the code itself: compare the commit, and the digests of the maps, with the authors'",
)
PASS, WARN, FAIL, NOT_RUN = VERDICTS = ("PASS", "WARN", "FAIL", "NOT RUN")
ABSENT = " is not there: "  # in the reason of a row that was not run, before the command that brings the file
CLASSES = ("exact", "float", "seed-statistical", "qualitative")
NOT_AVAILABLE = "not available"
MOST = 1e30  # that a published number can be
ANY, REAL = "any", "camels"  # profiles that can decide a published row: the code alone, or the real maps,
TWIN, TWIN_MAPS = "twin", "twin-maps"  # a twin at the paper's scale, or the maps of any twin
OLD = "camels-2023"  # the real maps before May 2024
TIERS = (0, 1, 2, 3)
FIELDS = ("id", "value", "class", "tolerance", "reason", "profile", "tier", "source")
ROW = (
    "id", "group", "verdict", "why", "class", "expected", "got", "low", "high", "tolerance", "reason", "source",
    "profile", "tier", "holds", "cause",
)  # fmt: skip

# What may stand in ms.tex as a number, with the reason; everything else with two digits, a point or a per cent sign
# must be a macro of results/numbers.tex, or the argument of \published.
TYPED = {
    r"95\%": "the level of every interval",
    r"68\%": "the level of a band",
    "15 maps": "of each simulation of CAMELS",
    "512 units": "the emulator's layers",
    r"$21\,$cm": "a name",
    r"randint(0,1)": "code",
    r"\Om=0.3": "fiducial",
    r"\sig=0.8": "fiducial",
    r"20\,\hMpc": "the published scale of saturation",
    r"25\,{\rm Mpc}/h": "the box of CAMELS",
    r"256^2": "pixels of CAMELS",
    r"32\,\hMpc": "Nyquist frequency of CAMELS",
    "1000 simulations": "CAMELS",
    "May 2024": "a date",
    "HMCode2020": "a name",
    r"\pm10\%": "a guide to the eye",
    r"$10\%$ apart": "the definition of what is resolved",
    r"between $0.5$ and $1.5\,\hMpc": "where a ratio is taken",
    r"near $10\,\hMpc": "where a ratio is taken",
    r"up to $10\,\hMpc": "where a ratio is taken",
    r"$k=0.5$--$1$": "where a correlation is taken",
    r"at $1$--$1.5$": "where a correlation is taken",
    r"stay below $0.4$": "a bound that tests assert",
    r"$10^{-4}$": "a unit",
    r"2021": "a date",
}
_NO_TEXT = (
    r"\\(?:label|ref|maderef|made|input|includegraphics|cite[a-z]*|hyperref|published|widefigure)\*?(?:\[[^]]*\])*\{[^}]*\}",
    r"-?[\d.]+(?:pt|in|em|cm|\\text(?:width|height)|\\paper(?:width|height))",
    r"\\renewcommand\{\\arraystretch\}\{[\d.]+\}",
    r"\\f?colorbox\{[^}]*\}\{[^}]*\}",
    r"[\^_]\{?[\w,\\]*\}?",
)


def row(id, group, verdict, why="", **more):
    """A row of the verdict; what it does not have is None. Characters that would steer a terminal are left out."""
    made = dict.fromkeys(ROW) | {"id": id, "group": group, "verdict": verdict, "why": why} | more
    return {
        key: "".join(one if one.isprintable() else "?" for one in value) if isinstance(value, str) else value
        for key, value in made.items()
    }


def causes(rows):
    """``rows`` in which what only follows from a row that failed is NOT RUN, and names it; each cause counts these.

    A row that fails ``accuses`` files. It is no cause of its own if an earlier one accuses all of these, a part of a
    folder among them, or any file that it ``stands_on``, from which it was made anew. Both entries are taken out.
    """
    accused, causes = {}, {}
    for one in rows:
        accuses, stands_on = (list(map(PurePath, one.pop(key, ()))) for key in ("accuses", "stands_on"))
        if one["verdict"] != FAIL:
            continue
        behind = [_accuser(path, accused) for path in accuses]
        below = [name for path in stands_on if (name := _accuser(path, accused))]
        if (behind and all(behind)) or below:
            one["cause"] = (below or behind)[0]
            one["verdict"], one["why"] = NOT_RUN, f"follows from {one['cause']}: {one['why']}"
            causes.setdefault(one["cause"], []).append(one["id"])
        else:
            accused |= {path: one["id"] for path in accuses if not _accuser(path, accused)}
    for one in rows:
        if follows := causes.get(one["id"]):
            count = f"{len(follows)} more row{'s' if len(follows) > 1 else ''}"
            one["why"] += f"; {count} only follow{'' if len(follows) > 1 else 's'} from it"
    return rows


def _accuser(path, accused):
    """The row that accuses ``path``, or a file in it."""
    return next((name for other, name in accused.items() if other == path or path in other.parents), None)


def beyond(tier, experiments):
    """Rows of what is not recomputed up to ``tier``, and so is neither passed nor failed."""
    return [
        row(name, BEYOND, NOT_RUN, f"{what}: TIER={least} makes them anew", tier=least)
        for name, least, what in TRUSTED
        if tier < least and (experiments or name != "experiments")
    ]


def check_expected(rows):
    """``rows`` of expected.yaml; ValueError for one that is not whole, or an id that stands twice."""
    seen = set()
    if not isinstance(rows, list):
        raise ValueError(f"expected a list of rows, got {rows!r:.60}")
    for number, one in enumerate(rows, 1):
        if not isinstance(one, dict):
            raise ValueError(f"expected {', '.join(FIELDS)} in row {number} of expected.yaml, got {one!r:.60}")
        name = one.get("id", f"row {number}")
        missing = [field for field in FIELDS if one.get(field) is None]
        if missing:
            raise ValueError(f"expected {', '.join(missing)} in {name!s:.60} of expected.yaml, got none")
        if not (isinstance(name, str) and name.isprintable()):
            raise ValueError(f"expected plain text as id in row {number} of expected.yaml, got {name!r:.60}")
        _check_row(one, name)
        if name in seen:
            raise ValueError(f"expected every id once in expected.yaml, got {name:.60} twice")
        seen.add(name)
    return rows


def _check_row(one, name):
    """ValueError unless a whole row says what it is and how near a result must come to it."""
    if unknown := [field for field in one if field not in (*FIELDS, "uncertain")]:
        raise ValueError(f"expected {', '.join(FIELDS)} or uncertain in {name:.60}, got the key {unknown[0]!r:.60}")
    for field, known in (("class", CLASSES), ("profile", (ANY, REAL, OLD, TWIN, TWIN_MAPS)), ("tier", TIERS)):
        if one[field] not in known:
            among = ", ".join(map(str, known))
            raise ValueError(f"expected a {field} among {among}, got {one[field]!r:.60} in {name:.60}")
    if one["class"] == "qualitative":
        limits = one["tolerance"] if isinstance(one["tolerance"], dict) else {}
        if not limits or set(limits) - {"above", "below"} or not all(map(_finite, limits.values())):
            raise ValueError(f"expected above or below and a number, got {one['tolerance']!r:.60} in {name:.60}")
    elif one["class"] != "exact" and one["value"] != NOT_AVAILABLE:
        if not _finite(one["value"]):
            raise ValueError(f"expected a number or {NOT_AVAILABLE}, got {one['value']!r:.60} in {name:.60}")
        _tolerance(one)


def _finite(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def required():
    """Ids that expected.yaml must have: what is known of the uncut network, and the whole table that was not found."""
    parameters = ("omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
    k_max = [f"kmax_{k}" for k in (1, 5, 10, 20, 30, 40, 50)]
    low = [f"min_{threshold}" for threshold in ("1e11", "2e11", "4e11", "6e11", "8e11", "1e12", "2e12")]
    cases = ["original", *k_max, *(f"max_{t}_random" for t in ("5e10", "1e11", "2e11", "5e11", "1e12"))]
    cases += [f"{case}_clamp" for case in low]
    by_suite = {"IllustrisTNG": cases, "Nbody_IllustrisTNG": cases + [f"{case}_random" for case in low]}
    metrics = ("rmse", "mean_sigma", "rms_relative_error", "r2")
    ids = {f"{metric}.IllustrisTNG.original.{name}" for metric in metrics for name in parameters}
    ids |= {f"valid_loss.IllustrisTNG.{case}.all" for case in ("original", *k_max)}
    tables = [(suite, case, name) for suite, cases in by_suite.items() for case in cases for name in parameters[:2]]
    return ids | {f"r2_table.{suite}.{case}.{name}" for suite, case, name in tables}


def published(rows, measured, undecided):
    """The verdict on each published row. ``measured`` is id → value, or (value, low, high) with a 95% interval.

    A seed-statistical number is judged by equivalence: PASS if its whole interval lies within the tolerance, FAIL if
    none of it does, WARN in between. ``undecided`` is the profile of rows that this run cannot decide → why not.
    """
    return [_published(one, measured.get(one["id"]), undecided.get(one["profile"])) for one in rows]


def _published(one, measured, undecided):
    value, low, high = measured if isinstance(measured, tuple) else (measured, None, None)
    facts = {key: one[key] for key in ("class", "tolerance", "reason", "source", "profile", "tier")}
    facts |= {"expected": one["value"], "got": value, "low": low, "high": high}
    if one["value"] == NOT_AVAILABLE:
        verdict, why = NOT_RUN, "the published value was not found: type it into paper/expected.yaml to have it judged"
    elif measured is None:
        verdict, why = NOT_RUN, "this run has no such result"
    else:
        verdict, why = _judge(one, value, low, high)
        if undecided:
            facts["holds"] = verdict == PASS
            verdict, why = NOT_RUN, f"{undecided}: {why}"
        elif verdict == FAIL and one.get("uncertain"):
            verdict, why = WARN, f"{why}; the source itself is uncertain"
    group = {ANY: "definitions", TWIN: "twin", TWIN_MAPS: "twin"}.get(one["profile"], "paper")
    return row(one["id"], group, verdict, why, **facts)


def _judge(one, value, low, high):
    if one["class"] == "exact":
        same = value == one["value"]
        return (PASS, "the same") if same else (FAIL, f"expected {one['value']!r}, got {value!r}")
    if not math.isfinite(value):
        return FAIL, "the result is not a number"
    below, above = limits(one)
    low, high = (value if low is None else low), (value if high is None else high)
    span = f"{below:.4g} to {above:.4g}"
    if below <= low and high <= above:
        return PASS, f"within {span}"
    if high < below or above < low:
        return FAIL, f"outside {span}"
    return WARN, f"the interval reaches across the limits {span}"


def limits(one):
    """Lowest and highest value that a row of expected.yaml accepts."""
    if one["class"] == "qualitative":
        return one["tolerance"].get("above", -math.inf), one["tolerance"].get("below", math.inf)
    return one["value"] - _tolerance(one), one["value"] + _tolerance(one)


def _tolerance(one):
    text = str(one["tolerance"])
    number = re.fullmatch(r"([\d.]+(?:e[+-]?\d+)?)(%?)", text)
    if not (number and _finite(float(number[1]))):
        raise ValueError(f"expected a tolerance such as 0.01 or 20%, got {text!r:.60} in {one['id']:.60}")
    return float(number[1]) * (abs(one["value"]) / 100 if number[2] else 1)


def lint(source, macros=()):
    """``[(line, number, advice)]``: numbers that are typed into the LaTeX ``source`` but are no part of the text.

    ``macros`` is name → text of results/numbers.tex; one with the same text is named.
    """
    blank = lambda found: "\n" * found[0].count("\n")  # noqa: E731
    text = re.sub(r"(?<!\\)%.*", "", source)
    start = max(text.find(r"\begin{document}"), 0)
    lines = text[:start].count("\n") + 1
    text = re.sub(r"\\begin\{(equation|align)\*?\}.*?\\end\{\1\*?\}", blank, text[start:], flags=re.DOTALL)
    for known in TYPED:
        text = re.sub(r"(?<![\d.])" + r"\s+".join(map(re.escape, known.split(" "))), blank, text)
    for pattern in _NO_TEXT:
        text = re.sub(pattern, blank, text)
    found = []
    for number in re.finditer(r"(?<![A-Za-z\\])\d+(?:[.,]\d+)*(?:\\%)?", text):
        digits = number[0].removesuffix(r"\%")
        if len(digits) == 1 and digits == number[0]:
            continue
        same = [name for name, value in dict(macros).items() if value == digits]
        advice = f"write \\{same[0]}" if same else "write a macro of results/numbers.tex, or \\published{…}"
        found.append((lines + text[: number.start()].count("\n"), number[0], advice))
    return found


def conclusion(rows, *, real, profile, tier=0, elsewhere=False):
    """``{"verdict", "text", "trust", "exit_code", "counts"}``: 0 nothing failed, 1 something did, 2 nothing was judged.

    What the code and the packages alone decide does not count as judged: without a run there is no verdict on it. A run
    of which something could not be checked is at best a WARN, unless it is an archive (``elsewhere``) without maps.
    ``trust`` says what a forger could have done that ``tier`` does not see.
    """
    counts = {
        group: {name: sum(one["verdict"] == name for one in rows if one["group"] == group) for name in VERDICTS}
        for group in dict.fromkeys(one["group"] for one in rows)
    }
    failed = [one["id"] for one in rows if one["verdict"] == FAIL]
    apart = ("definitions", "lint.ms.tex", "environment.packages", "pack.dvc.yaml", "pack.requirements.lock")
    judged = [one for one in rows if one["verdict"] != NOT_RUN and not {one["group"], one["id"]}.intersection(apart)]
    unchecked = [one for one in rows if one["group"] == "integrity" and one["verdict"] == NOT_RUN]
    absent = [one["why"].rpartition(ABSENT)[2] for one in unchecked if ABSENT in one["why"]]
    unchecked = [one["id"] for one in unchecked if not one["cause"]]
    warned = (unchecked and not elsewhere) or any(one["verdict"] == WARN for one in rows)
    trust = f"At this tier a forger could still have {FORGERS[tier]}"
    if failed:
        text = f"{len(failed)} row{'s' if len(failed) > 1 else ''} failed: {', '.join(failed[:5])}"
        verdict, code = FAIL, 1
    elif not judged:
        text = "there is no run to judge: make paper"
        return {"verdict": NOT_RUN, "text": text, "trust": "", "exit_code": 2, "counts": counts}
    else:
        verdict, code = (WARN if warned else PASS), 0
        text = _good(rows, judged, real, profile, whole=not unchecked)
    if unchecked:
        text += f". Not checked: {', '.join(unchecked[:3])}{' and more' if len(unchecked) > 3 else ''}"
        text += "".join(f"; {absent.count(get)} rows want: {get}" for get in dict.fromkeys(absent))
    if not real:
        text += f". {_of_twin(rows)}; only the real maps can decide the paper's numbers"
    return {"verdict": verdict, "text": text, "trust": trust, "exit_code": code, "counts": counts}


def _good(rows, judged, real, profile, whole):
    """What a run in which nothing failed shows, in words; ``whole`` if all of it was there to be checked."""
    paper = {}  # a number that several tiers judged is reproduced if all of them say so
    for one in judged:
        if one["group"] == "paper" or one["profile"] == REAL:
            paper.setdefault(one["id"], set()).add(one["verdict"])
    if real and paper:
        unknown = len({one["id"] for one in rows if one["expected"] == NOT_AVAILABLE})
        good = sum(verdicts == {PASS} for verdicts in paper.values())
        text = f"{good} of the {len(paper)} published numbers that this run decides are reproduced"
        return f"{text}; {unknown} published numbers are not available"
    if any(one["group"] == "reference" and one["verdict"] != NOT_RUN for one in rows):
        return "the pipeline reproduces its own reference"
    agree = "the results are whole and agree with one another" if whole else "what was checked agrees"
    return f"{agree}; nothing was compared with a reference of {profile}"


def _of_twin(rows):
    """What a twin of CAMELS confirmed, in words."""
    judged = [one["verdict"] for one in rows if one["group"] == "twin" and one["verdict"] != NOT_RUN]
    if not judged:
        return "The maps are a twin of CAMELS', simulated here"
    held = f"{judged.count(PASS)} of {len(judged)} statements hold"
    return f"The maps are a twin of CAMELS', and of what it shares with the real maps {held}"
