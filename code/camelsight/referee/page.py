"""A run, with its verdict where it has one, as one HTML page that needs nothing else: no network, no other file."""

import fnmatch
import html as escaping
import re

from camelsight.ground import theta
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, VERDICTS, WARN
from camelsight.report import provenance

COLOURS = {PASS: "#1a7f37", WARN: "#9a6700", FAIL: "#cf222e", NOT_RUN: "#6e7781"}
COLUMNS = ("id", "verdict", "expected", "got", "interval", "tolerance", "why", "reason", "source", "tier")
GROUPS = {
    "integrity": "Is the run what it says it is?",
    "reference": "Does the pipeline reproduce its own reference?",
    "paper": "What is published of the paper and its companions",
    "twin": "What CAMELS' universes, simulated again, share with the real ones",
    "definitions": "Definitions and settings: what the code alone decides",
    "evaluated anew": "T1: the given weights, evaluated anew",
    "trained anew": "T2: one case, trained anew",
    "made anew": "T3: everything made anew",
    "beyond this tier": "What only a higher tier can tell",
}
BOX = (96, 26, 34, 14)  # of the diagram: width, height, gaps, in pixels
STYLE = """
:root{color-scheme:light dark;--text:#1f2328;--soft:#57606a;--back:#fff;--raised:#f6f8fa;--line:#d0d7de;--box:#ddf4ff;
--edge:#54aeff;--link:#0969da}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9198a1;--back:#0d1117;--raised:#161b22;--line:#30363d;
--box:#12263f;--edge:#388bfd;--link:#58a6ff}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;max-width:1500px;margin:0 auto;padding:1.5em;color:var(--text);
background:var(--back);overflow-wrap:break-word}a{color:var(--link)}
h1{margin-bottom:.2em}h2{margin-top:2em;border-bottom:1px solid var(--line)}table{border-collapse:collapse;
font-size:13px}th,td{text-align:left;vertical-align:top;padding:.25em .6em;border-bottom:1px solid var(--line)}
th{background:var(--raised)}thead th{position:sticky;top:0}.scroll{overflow:auto;max-height:80vh}
.badge{color:#fff;border-radius:4px;padding:.1em .5em;font-weight:600;font-size:12px;white-space:nowrap}
td.id{font-family:ui-monospace,monospace;overflow-wrap:anywhere;min-width:17em}td.long{min-width:16em;max-width:28em}
td.number{white-space:nowrap}summary{cursor:pointer;margin:.6em 0;font-weight:600}
.said{border-left:6px solid var(--edge);padding:.6em 1em;background:var(--raised)}
figure{display:inline-block;margin:.6em;max-width:47%;vertical-align:top}figure img{max-width:100%;max-height:420px;
background:#fff}figcaption{font-size:13px;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content auto;gap:.1em 1em}dt{color:var(--soft)}
dd{margin:0;font-family:ui-monospace,monospace;font-size:13px;overflow-wrap:anywhere;min-width:0}
pre{background:var(--raised);padding:1em;font-size:13px;overflow:auto}
svg text{font:12px system-ui,sans-serif;fill:var(--text)}svg path{stroke:var(--soft)}
svg rect{fill:var(--box);stroke:var(--edge)}
@media(max-width:800px){body{padding:.8em}figure{max-width:100%;margin:.6em 0}}
"""
UNJUDGED = "Nobody has judged this run yet: make verify."


def html(run, verdict=None):
    """The page as text.

    ``run`` is what ``overview.read`` returns, and ``verdict`` the content of verdict.json, or None before there is one.
    """
    parts = _verdict(verdict) if verdict else _unjudged(run)
    parts += [*_headline(run), *_rows_of(verdict), *_figures(run), *_table_of_r2(run)]
    if run["parameters"]:
        text = f"<pre>{_text(run['parameters'])}</pre>"
        parts += ["<h2>Parameters</h2>", f"<details><summary>params.yaml</summary>{text}", "</details>"]
    if run["stages"]:
        parts += ["<h2>Pipeline</h2>", f'<div class="scroll">{diagram(run["stages"])}</div>']
    parts += ["<h2>Environment</h2>", _facts(run["environment"])]
    parts += ["<h2>Timings</h2>", _timings(run["timings"], verdict)]
    title = f"{verdict['conclusion']['verdict']}: profile {run['profile']}" if verdict else f"Profile {run['profile']}"
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
    head += f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
    return "".join([head, "<body>", "\n".join(parts), "</body></html>\n"])


def _verdict(verdict):
    said = verdict["conclusion"]
    sentence = said["text"][0].upper() + said["text"][1:]
    groups = dict.fromkeys(row["group"] for row in verdict["rows"])
    counts = [(_text(GROUPS.get(group, group)), *said["counts"][group].values()) for group in groups]
    return [
        f"<h1>Verdict {_badge(said['verdict'])}</h1>",
        f'<p class="said" style="border-color:{COLOURS[said["verdict"]]}">{_text(sentence)}.</p>',
        f"<p>{_text(said['trust'])}{'.' if said['trust'] else ''}</p>",
        f"<p>Profile {_text(verdict['profile'])}, maps: {_text(verdict['maps'])}, up to tier {verdict['tier']}.</p>",
        "<h2>Summary</h2>",
        _table(("rows", *VERDICTS), counts),
        *_rates(verdict["error_rates"]),
    ]


def _unjudged(run):
    twin = f"{provenance.TWIN} " if run["maps"] == "twin" else ""
    return [f"<h1>Profile {_text(run['profile'])}</h1>", f'<p class="said">{twin}{UNJUDGED}</p>']


def _headline(run):
    """R² of the uncut maps, and the files that a reader looks for first."""
    uncut = [row for row in run["r2"] if row["case"] == "original" and row["parameter"] in theta.COSMOLOGICAL]
    parts = ["<h2>The uncut maps</h2>"] if uncut else []
    for row in uncut:
        parts.append(f"<p>{_text(row['suite'])}, {_text(row['parameter'])}: R² <b>{_interval(row)}</b></p>")
    links = [f'<a href="{_text(place)}">{_text(name)}</a>' for name, place in run["files"].items()]
    return [*parts, f"<p>{' · '.join(links)}</p>" if links else ""]


def _rows_of(verdict):
    if not verdict:
        return []
    rows, groups = verdict["rows"], {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    bad = [row for row in rows if row["verdict"] in (FAIL, WARN)]
    parts = ["<h2>What failed, and what to look at</h2>", _rows(bad)] if bad else []
    parts.append("<h2>All rows</h2>")
    for group, inside in groups.items():
        counts = verdict["conclusion"]["counts"][group]
        said = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
        summary = f"<summary>{_text(GROUPS.get(group, group))} ({said})</summary>"
        parts.append(f"<details>{summary}{_rows(inside)}</details>")
    return parts


def _figures(run):
    figures, made_by = run["figures"], run["made_by"]
    ordered = sorted(figures, key=lambda name: list(made_by).index(name) if name in made_by else len(made_by))
    return ["<h2>Figures</h2>" if figures else "", *(_figure(name, figures[name], made_by) for name in ordered)]


def _table_of_r2(run):
    """R² of every network with its 95% interval, a line for each suite and case."""
    lines = {}
    for row in run["r2"]:
        lines.setdefault((row["suite"], row["case"]), {})[row["parameter"]] = _interval(row)
    body = [(*map(_text, key), *(found.get(name, "") for name in theta.NAMES)) for key, found in lines.items()]
    kinds = ["", "", *["number"] * len(theta.NAMES)]
    return ["<h2>R² with 95% intervals</h2>", _table(("suite", "case", *theta.NAMES), body, kinds)] if body else []


def _interval(row):
    try:
        return "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[key]) for key in ("r2", "low", "high")))
    except ValueError:  # somebody else's table
        return _text(row["r2"])


def edges(stages):
    """``{(from, to)}`` between the stages of dvc.yaml, without those that others imply."""
    outs = {name: [_pattern(next(iter(o), "") if isinstance(o, dict) else o) for o in one.get("outs", [])]
            for name, one in stages.items()}  # fmt: skip
    deps = {name: [_pattern(path) for path in one.get("deps", [])] for name, one in stages.items()}
    direct = {(a, b) for a in stages for b in stages if a != b and any(_meet(o, d) for o in outs[a] for d in deps[b])}
    return {(a, b) for a, b in direct if not any((a, c) in direct and (c, b) in direct for c in stages)}


def diagram(stages):
    """The pipeline as an SVG: a column for each step from the maps."""
    links, level = edges(stages), dict.fromkeys(stages, 0)
    for _ in stages:
        for a, b in links:
            level[b] = max(level[b], level[a] + 1)
    width, height, across, down = BOX
    place, rows, lines = {}, {}, []
    for name, x in level.items():
        rows.setdefault(x, []).append(name)
    tallest = max(map(len, rows.values()), default=0)
    for x, names in rows.items():
        offset = (tallest - len(names)) * (height + down) / 2
        for y, name in enumerate(names):
            place[name] = (x * (width + across) + 1, offset + y * (height + down) + 1)
    for a, b in sorted(links):
        (x1, y1), (x2, y2) = place[a], place[b]
        x1, y1, y2, half = x1 + width, y1 + height / 2, y2 + height / 2, across / 2
        lines.append(f'<path d="M{x1},{y1} C{x1 + half},{y1} {x2 - half},{y2} {x2},{y2}" fill="none"/>')
    boxes = [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5"/>'
        f'<text x="{x + width / 2}" y="{y + height / 2 + 4}" text-anchor="middle">{_text(name)}</text>'
        for name, (x, y) in place.items()
    ]
    size = (len(rows) * (width + across), tallest * (height + down) + 2)
    return f'<svg width="{size[0]}" height="{size[1]}" role="img" aria-label="stages">{"".join(lines + boxes)}</svg>'


def _pattern(path):
    return [re.sub(r"\$\{[^}]*\}", "*", part) for part in path.split("/")]


def _meet(a, b):
    return all(fnmatch.fnmatch(x, y) or fnmatch.fnmatch(y, x) for x, y in zip(a, b, strict=False))


def _rows(rows):
    body, digest = [], re.compile(r"[0-9a-f]{24,}")
    for row in rows:
        interval = "" if row["low"] is None else f"{row['low']:.5g} to {row['high']:.5g}"
        cells = row | {"interval": interval}
        texts = [_badge(row["verdict"]) if key == "verdict" else _cell(cells[key]) for key in COLUMNS]
        body.append([digest.sub(lambda found: found[0][:12] + "…", text) for text in texts])
    kinds = {"id": "id", "why": "long", "reason": "long", "source": "long", "interval": "number"}
    used = [n for n in range(len(COLUMNS)) if any(line[n] for line in body)]
    header = [COLUMNS[n] for n in used]
    return _table(header, [[line[n] for n in used] for line in body], [kinds.get(key, "") for key in header])


def _table(header, body, kinds=()):
    kinds = kinds or [""] * len(header)
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    lines = (
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, line, strict=True)) + "</tr>"
        for line in body
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _rates(rates):
    if not rates:
        return []
    family, row, left = rates["false_alarm_family"], rates["false_alarm_row"], rates["left_out"]
    text = (
        f"The reference has {rates['rows']} rows, of R² and of shifts, over {rates['seeds']} seeds of the training. "
        f"If trainings go badly as often as those do, a run that repeats it fails with a probability of "
        f"{100 * family['FAIL']:g}% ({row['FAIL']:.1e} a row), and is warned about with {100 * family['WARN']:g}%. "
        f"Each row says what it detects with a probability of {100 * rates['power']:g}%."
    )
    if left:
        text += (
            f" Each seed judged by the others: of {left['rows']} rows {left['WARN']} are at WARN and {left['FAIL']} at "
            f"FAIL; of {rates['seeds']} such runs {left['runs_with_a_FAIL']} would fail."
        )
    return [f"<p>{_text(text)}</p>"]


def _figure(name, data, made_by):
    caption = _text(f"{name}: results of the stage {made_by.get(name, 'figures')}")
    picture = f'<img alt="{_text(name)}" src="data:image/png;base64,{data}">'
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _facts(environment):
    facts = {"commit": environment["commit"] + (" with uncommitted changes" if environment["dirty"] else "")}
    facts |= {"processor": environment["cpu"], "hardware": environment["hardware"], **environment["versions"]}
    return "<dl>" + "".join(f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in facts.items()) + "</dl>"


def _timings(timings, verdict):
    total = {}
    for one in timings:
        count, seconds = total.get(one["stage"], (0, 0.0))
        total[one["stage"]] = count + 1, seconds + one["seconds"]
    for tier, seconds in (verdict["seconds"] if verdict else {}).items():
        total[f"verify {tier}"] = 1, seconds
    body = [(_text(stage), count, f"{seconds:.1f}") for stage, (count, seconds) in total.items()]
    return _table(("stage", "runs", "seconds in all"), body)


def _badge(verdict):
    return f'<span class="badge" style="background:{COLOURS[verdict]}">{verdict}</span>'


def _cell(value):
    return "" if value is None else _text(f"{value:.5g}" if isinstance(value, float) else value)


def _text(value):
    return escaping.escape(str(value))
