"""What FULL=1 asks for: params.yaml with every experiment of the profile."""

import contextlib
import dataclasses
import io
import itertools

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from camelsight.ground import fields
from camelsight.pipeline import params, paths

FURTHER_SUITES = ("SIMBA",)  # for the transfer matrix


def switched_on(text, experiments=None):
    """The text of a params.yaml in which the ``experiments``, by default all, are switched on, all else as it is.

    Comments stay where they are. ValueError if ``text`` is none, or says it in a way that cannot be changed.
    """
    before = params.parse(text, paths.PARAMS)
    yaml = editor()
    raw, changed = yaml.load(text.removeprefix("\ufeff")), {}
    word = DoubleQuotedScalarString if text.lstrip().startswith("{") else str  # JSON remains JSON
    if experiments is None:
        experiments = {key: params.possible(names, before.fields) for key, names in params.EXPERIMENTS.items()}
        has = [set(before.fields) <= set(fields.of_suite(suite)) for suite in FURTHER_SUITES]
        more = itertools.compress(FURTHER_SUITES, has)
        experiments["suites"] = [suite for suite in more if suite not in before.suites]
    for key, names in experiments.items():
        asked = getattr(before.robustness, key)
        if more := [name for name in names if name not in asked]:
            listed = raw["robustness"][key]
            if not listed:
                listed.fa.set_flow_style()
            listed.extend(map(word, more))
            changed[key] = (*asked, *more)
    if not changed:
        return text
    made = written(yaml, raw)
    expected = dataclasses.replace(before, robustness=dataclasses.replace(before.robustness, **changed))
    with contextlib.suppress(ValueError):
        if params.parse(made, paths.PARAMS) == expected:
            return made
    raise ValueError(
        f"{paths.PARAMS}: expected lists of their own under robustness, got ones that other keys share; write them out"
    )


def editor():
    """A reader and writer of params.yaml that keeps comments and quotes."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 1 << 20
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the profiles have them
    return yaml


def written(yaml, content):
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
