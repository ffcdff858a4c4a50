"""CMD's challenges on several fields as one table: errors and information of sets of fields, the smallest set."""

from tabulate import tabulate

from camelsight.ground import theta
from camelsight.report.tables import NOT_AVAILABLE, _booktabs, escape, suite_label

COLUMNS = (
    *("fields", "test", "parameter", "rmse", "relative_error", "r2", "low", "high"),
    *("loss_above_best", "information"),
)


def rows(record):
    """A dict per set of fields, suite and cosmological parameter; loss and information are those of the own suite."""
    best = min(one["loss"] for one in record["sets"])
    return [
        {
            "fields": " ".join(one["fields"]),
            "test": tested["test"],
            "parameter": name,
            **{key: tested["metrics"][key][name][0] for key in ("rmse", "relative_error")},
            **dict(zip(("r2", "low", "high"), tested["metrics"]["r2"][name], strict=True)),
            "loss_above_best": one["loss"] - best,
            "information": one["information"],
        }
        for one in record["sets"]
        for tested in one["tests"]
        for name in theta.COSMOLOGICAL
    ]


def _cells(record):
    """Header and body of the table: a row per set of fields, the best first."""
    best, most = min(one["loss"] for one in record["sets"]), max(one["information"] for one in record["sets"])
    header, body = ["fields", "loss above the best", "information", "share"], []
    for test in record["suites"]:
        header += [f"{suite_label(test)}: {name}" for name in theta.COSMOLOGICAL]
    for one in sorted(record["sets"], key=lambda one: -one["information"]):
        cells = [" + ".join(one["fields"]), f"{one['loss'] - best:.2f}", f"{one['information']:.2f}"]
        cells.append(f"{100 * one['information'] / most:.0f}%" if most > 0 else NOT_AVAILABLE)
        for tested in one["tests"]:
            cells += [f"{tested['metrics']['rmse'][name][0]:.4f}" for name in theta.COSMOLOGICAL]
        body.append(cells)
    return header, body


def latex(record):
    header, body = _cells(record)
    for name in theta.COSMOLOGICAL:
        header = [cell.replace(f": {name}", f": {theta.LABELS[name]}") for cell in header]
    return _booktabs([[escape(cell) for cell in row] for row in body], header)


def text(record):
    """The table for a terminal, and what follows from it."""
    header, body = _cells(record)
    lines = [
        f"Networks of {suite_label(record['suite'])} on its test maps, and on those of other suites: rms errors.",
        "Information: nats about both parameters, -ln(1 - R²) / 2 of each.",
        tabulate(body, header, disable_numparse=True),
        *sentences(record),
    ]
    return "\n".join(lines)


def sentences(record):
    """What forward selection found, a line for each share of the best network's information."""
    order = " → ".join(record["order"])
    yield f"Forward selection, by the validation maps: {order}."
    for share, names in record["smallest"].items():
        what = " + ".join(names) if names else "no set: none tells anything"
        yield f"{share}% of the best network's information, on the test maps: {what}."


def numbers(record):
    """The macros that the text quotes, with a dash where the experiment was not run."""
    if record is None:
        keys = ("FieldsOrder", "FieldsBest", *(f"FieldsFor{word}" for word in WORDS.values()))
        return dict.fromkeys(keys, NOT_AVAILABLE)
    best = max(record["sets"], key=lambda one: one["information"])
    return {
        "FieldsOrder": ", ".join(record["order"]),
        "FieldsBest": " and ".join(best["fields"]),
        **{f"FieldsFor{word}": " and ".join(record["smallest"][share] or ["none"]) for share, word in WORDS.items()},
    }


WORDS = {"90": "Ninety", "95": "NinetyFive"}  # keys of a record's ``smallest`` → of macros
