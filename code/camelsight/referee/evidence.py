"""What a run left behind: the numbers that the verdict compares, and whether its files still agree with one another."""

import shutil
from itertools import product

import numpy as np
import safetensors.torch

from camelsight.analysis import dataset, prediction
from camelsight.ground import cmd, fields, split, theta
from camelsight.inference import metrics
from camelsight.maps import scaling
from camelsight.pipeline import environment, launch, map_files, packages, paths, rerun, store, text_tables
from camelsight.referee import content, files, locked, quantities, verification
from camelsight.referee.files import row
from camelsight.referee.verification import FAIL, NOT_RUN, PASS, WARN
from camelsight.universe import camels, validation

ROUNDING = 1e-9  # of 1 - R² and the other measures computed twice from the same predictions
LOOSER = 10  # times the tolerance of 1 - R², a mean square, is that of other measures and of intervals
REMADE = launch.LAST  # stages that are cheap enough to be run once more, whatever the tier


def integrity(params, elsewhere=False):
    """Rows on whether the files of a run are those that it made, and say the same of every number.

    ``elsewhere``: the maps were made anew on this machine, and may differ from those of the run in rounding. So may
    maps that are simulated, where the run has no record of this very machine. One cause is one row that fails.
    """
    remade = {suite for suite in params.suites if _remade(params, suite, elsewhere)}
    stages = list(_or_fail("stage", locked.stages(params, elsewhere or bool(remade))))
    changed = {path for one in stages if one["verdict"] == FAIL for path in one["accuses"]}
    rows = [
        *[one for one in stages if one["id"] == "dvc.lock"],
        *files.damaged(),
        *_or_fail("data", _data(params, remade)),
        *_or_fail("statistics", _statistics(params, remade)),
        *_or_fail("weights", _weights(params)),
        *_or_fail("predictions", _predictions(params)),
        *_or_fail("r2", _numbers(params, str(paths.TABLES) in changed)),
        *_or_fail("file.tables", _made_again(params)),
        *[one for one in stages if one["id"] != "dvc.lock"],
        *_or_fail("environment.training", locked.trained_in(params)),
        _lint(),
    ]
    return verification.causes(rows)


def _or_fail(name, rows):
    """``rows``, and a row ``name`` that fails in place of what could not be read."""
    try:
        yield from rows
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        stands_on = [paths.NUMBERS.parent, paths.MAPS]
        yield row(name, FAIL, files.unreadable(error), accuses=[], stands_on=stands_on)


def _remade(params, suite, elsewhere):
    """Whether the maps of ``suite`` were simulated anew, so that every one of them may be another in its last bits.

    An archive has no maps. A run that was pulled has no record of the processor either, or one of another.
    """
    if params.maps.source == "camels" or elsewhere:
        return elsewhere
    made = [store.read_json(path)["cpu"] for case in params.cases if (path := paths.record(suite, case)).exists()]
    if environment.read()["cpu"] in made:
        return False
    try:
        seen = store.read_json(paths.cut(suite, "original"))["digests"]
        given = dataset.open_suite(params, suite)
    except (OSError, ValueError, KeyError):  # its own row says so
        return False
    here = (dataset.map_digest(given.simulation(number)) for number in given.numbers)
    return all(digest not in seen for digest in here)


def _data(params, remade):
    for suite in params.suites:
        name, record = f"data.{suite}", paths.cut(suite, "original")
        if lost := [*files.lost_maps(params, [suite]), *([] if record.exists() else [record])]:
            yield files.absent(name, lost[0])
            continue
        expected, accused = files.read(store.read_json, record), paths.all_maps([suite], params.fields)
        place = accused[0] if len(accused) == 1 else accused[0].parent
        try:
            given = dataset.open_suite(params, suite)
        except ValueError as error:
            yield row(name, FAIL, f"{place}: {store.one_line(error)}", accuses=accused)
            continue
        drawn = camels.parameters(suite)[given.numbers] if params.maps.source == "twin" else given.parameters
        if not np.array_equal(given.parameters, drawn):
            yield row(name, FAIL, f"{paths.parameters(suite)} is not CAMELS' table")
            continue
        digests = [dataset.map_digest(given.simulation(number)) for number in given.numbers]
        pairs = zip(given.numbers, digests, expected["digests"], strict=True)
        other = [number for number, found, seen in pairs if found != seen]
        verdict, why = PASS, "every map is the one that the run saw"
        if other:
            verdict = WARN if suite in remade else FAIL
            why = f"simulation {', '.join(map(str, other[:3]))} of {place} is not the one that the run saw"
            if suite in remade:
                why += f"; made anew here, where they round differently: statistics.{suite} judges them"
        yield row(name, verdict, why, expected=expected["digest"], got=store.digest(digests), accuses=accused)


def _statistics(params, remade):
    """The statistics of pixels in universe.json beside those of the maps."""
    record = files.read(store.read_json, paths.UNIVERSE)
    for suite, field in product(params.suites, params.fields):
        name = f"statistics.{suite}" + (f".{field}" if field != fields.TOTAL else "")
        path = paths.maps(suite, field)
        if record is None or files.lost_maps(params, [suite]):
            lost = path if record else paths.UNIVERSE
            yield files.absent(name, lost)
            continue
        maps = map_files.open_maps(suite, field, params.maps.simulations, params.maps.pixels, paths.MAPS)
        made = validation.pixel_statistics(maps, fields.FIELDS[field].offset)
        given, wrong = record["statistics"][suite][field], None
        if made != given:
            tolerances = quantities.PIXELS if suite in remade else dict.fromkeys(made, ROUNDING)
            pairs = [(key, content.values(made[key], given.get(key), most)) for key, most in tolerances.items()]
            wrong = next((f"{key} of the maps{why[2:]}" for key, why in pairs if why), None)
        why = wrong or f"those of the maps{', but for rounding' if made != given else ''}"
        yield row(name, FAIL if wrong else PASS, why, accuses=[paths.UNIVERSE], stands_on=[path])


def _weights(params):
    for suite, case in product(params.suites, params.cases):
        name, file = f"weights.{suite}.{case}", paths.weights(suite, case)
        try:
            got = weights_digest(file) if file.exists() else None
            records = [files.read(store.read_json, path(suite, case)) or {} for path in (paths.metrics, paths.history)]
            evaluated, trained = (record.get("weights") for record in records)
        except ValueError as error:
            yield row(name, FAIL, str(error), accuses=[file])
            continue
        if got is None or evaluated is None:
            verdict, why = NOT_RUN, f"not trained, or not evaluated: {files.how_to_get(file)}"
        elif got != evaluated or trained not in (None, got):
            verdict = FAIL
            why = f"the tensors in {file} are not those {'trained' if got == evaluated else 'evaluated'}"
        elif trained is None:
            verdict = NOT_RUN
            why = f"those that were evaluated; without {paths.history(suite, case)} nobody knows what was trained"
        else:
            verdict, why = PASS, "those that were trained and evaluated"
        stands_on = [paths.metrics(suite, case), paths.history(suite, case)]
        yield row(name, verdict, why, expected=evaluated, got=got, accuses=[file], stands_on=stands_on)


def weights_digest(path):
    """The identity of the weights in ``path``; ValueError if the file is damaged or not there."""
    digest = files.read(lambda path: store.tensor_digest(safetensors.torch.load_file(path)), path)
    if digest is None:
        raise ValueError(f"expected weights in {path}, got no such file")
    return digest


def differences(given, again, *, rounding, rows=None):
    """Where two results of the same network disagree, for one parameter: ``metric → (value, low, high)`` each, or
    fewer of them in ``again``.

    ``rounding`` is that of 1 - R². ``rows``, the number of predictions, says that these are another processor's: other
    measures may then differ by more, and coverages by two rows.
    """
    scales = {"bias": given["rmse"][0], "bias_slope": np.sqrt(max(1 - given["r2"][0], 0))}
    found = []
    for metric, values in again.items():
        for place, (ours, theirs) in enumerate(zip(values, given[metric], strict=False)):
            scale = max(1 - theirs, 0) if metric == "r2" else scales.get(metric, abs(theirs))
            tolerance = rounding * scale if np.isfinite(scale) else 0
            if rows:
                tolerance *= 1 if (metric, place) == ("r2", 0) else LOOSER
                tolerance += 2 / rows if metric in metrics.COVERAGE else 0
            if not _same(ours, theirs, tolerance):
                found.append(f"{metric}{('', ' low', ' high')[place]}: {ours:.6g} instead of {theirs:.6g}")
    return found


def _predictions(params):
    """Whether predictions are for the test maps, with their true parameters, and say the same as text."""
    for suite, case in product(params.suites, params.cases):
        name, path = f"predictions.{suite}.{case}", paths.predictions(suite, case)
        if not path.exists():
            yield files.absent(name, path)
            continue
        try:
            arrays = files.read(store.read_arrays, path)
            wrong = _other_text(suite, case, arrays) or _other_maps(params, suite, arrays)
        except (KeyError, ValueError, OSError) as error:
            wrong = files.unreadable(error, path)
        if wrong:
            verdict, why = FAIL, wrong
        elif paths.parameters(suite).exists():
            verdict, why = PASS, "of the test maps, with their parameters; the same as text"
        else:
            why = f"the same as text; without {paths.parameters(suite)} nobody knows the true parameters"
            verdict = NOT_RUN
        yield row(name, verdict, why, accuses=[path, paths.predictions_text(suite, case)])


def _other_text(suite, case, arrays):
    path = paths.predictions_text(suite, case)
    if not path.exists():
        return f"{path} is missing"
    text = text_tables.predictions(*(arrays[key] for key in ("truth", "mean", "sigma")))
    wrong = content.text(text, path.read_text(encoding="utf-8"))
    return wrong and f"{path} is not what {paths.predictions(suite, case).name} holds: {wrong}"


def _other_maps(params, suite, arrays):
    """Where the rows of predictions are not those of the test maps, or their truth not that of the suite."""
    index = split.map_indices(dataset.splits(params)["test"])
    if params.evaluate.views == "8":
        index = np.repeat(index, scaling.SYMMETRIES)
    simulation = index // cmd.MAPS_PER_SIMULATION
    expected = {"index": index, "simulation": simulation}
    if params.maps.source == "twin":
        expected["truth"] = camels.parameters(suite)[simulation]
    elif paths.parameters(suite).exists():
        expected["truth"] = map_files.read_parameters(suite, params.maps.simulations, paths.MAPS)[simulation]
    for name, values in expected.items():
        if wrong := content.arrays(values, arrays[name], 0.0, name):
            return f"not those of the test maps of {suite}: {wrong}"
    return None


def _numbers(params, other_tables):
    """Each R²: as the predictions have it, in the results, and in the table for programs.

    ``other_tables``: the tables are not those of dvc.lock, so that they are at fault where the two differ.
    """
    by_id = {(one["suite"], one["case"], one["parameter"]): one for one in quantities.table()}
    for suite, case in product(params.suites, params.cases):
        result, predictions = paths.metrics(suite, case), paths.predictions(suite, case)
        about = {"accuses": [result], "stands_on": [predictions]}
        try:
            record = files.read(store.read_json, result)
            arrays = files.read(store.read_arrays, predictions)
            generator = prediction.bootstrap(params, suite, case)
            again = prediction.measure(arrays, generator, params) if arrays else None
        except (KeyError, ValueError) as error:
            why = files.unreadable(error, f"the result of {suite} {case}")
            yield row(f"r2.{suite}.{case}", FAIL, why, **about)
            continue
        for name in theta.NAMES:
            where, line = f"r2.{suite}.{case}.{name}", by_id.get((suite, case, name))
            if record is None:
                get = files.how_to_get(result)
                wrong = f"{paths.TABLES}/r2.csv has it, {result} is missing: {get}" if line else None
                yield row(where, FAIL if line else NOT_RUN, wrong or f"no result: {get}", **about)
                continue
            facts = about | {"got": record["metrics"]["r2"][name][0]}
            wrong = _other_than_predicted(record["metrics"], again, name, result) if again else []
            if other_tables and not wrong:
                facts["accuses"] = [paths.TABLES / "r2.csv"]
            wrong += _other_in_table(line, facts["got"])
            if arrays is None and not wrong:
                why = f"results and r2.csv agree; without {predictions} nobody knows whence they are"
                yield row(where, NOT_RUN, why, **facts)
                continue
            why = "; ".join(wrong) or "predictions, results and r2.csv agree"
            yield row(where, FAIL if wrong else PASS, why, **facts)


def _other_than_predicted(given, again, name, result):
    """What of the metrics of a parameter the predictions give otherwise, in words."""
    given, again = ({metric: by_name[name] for metric, by_name in measures.items()} for measures in (given, again))
    return [f"the predictions give {one} in {result}" for one in differences(given, again, rounding=ROUNDING)]


def _other_in_table(line, value):
    """What the table for programs has in place of the R² ``value``, in words; ``line`` is its row, None without."""
    if line is None:
        return [f"{paths.TABLES}/r2.csv has no such row"]
    if not _same(float(line["r2"]), value):
        return [f"{paths.TABLES}/r2.csv has {float(line['r2']):.6g}, the result is {value:.6g}"]
    return []


def _same(a, b, tolerance=0.0):
    return bool(a == b or abs(a - b) <= tolerance or (np.isnan(a) and np.isnan(b)))


def _made_again(params):
    """Tables, numbers, figures and PDF beside those that their stages make of the same results once more."""
    if not paths.NUMBERS.exists():
        yield from (files.absent(name, paths.NUMBERS) for name in ("numbers", "tables", "figures", "ms.pdf"))
        return
    with rerun.empty() as folder:
        made = {paths.TABLES, paths.NUMBERS, paths.INTERPRETATION, paths.METRICS, paths.PLOTS}
        made |= {paths.VERDICT, paths.CRATE}
        results = [path for path in paths.NUMBERS.parent.iterdir() if path not in made]
        rerun.prepare(folder, params, [*results, *paths.TEXTS, paths.REFERENCES, paths.DIGITISED, paths.SEEDS])
        try:
            rerun.here(folder, params, *(stage for stage in REMADE if stage != "paper"))
        except Exception as error:  # what records that somebody made up raise depends on what is wrong with them
            why = f"the results do not give the tables and figures again: {files.unreadable(error)}"
            yield row("file.tables", FAIL, why, accuses=[paths.TABLES], stands_on=results)
            return
        for place in (paths.NUMBERS.parent, paths.FIGURES):
            yield from (one | {"stands_on": results} for one in _compared(folder, place))
        if "paper" in REMADE:
            yield _typeset(folder, params) | {"accuses": [paths.PDF], "stands_on": results}


def _compared(folder, place):
    """A row for each file below ``place`` that was made once more in ``folder``, and for each that was not."""
    made = {path.relative_to(folder) for path in (folder / place).rglob("*") if path.is_file()}
    made = {path for path in made if not any((folder / part).is_symlink() for part in (path, *path.parents[:-1]))}
    for path in sorted(made):
        wrong = _other_content(folder / path, path)
        name = files.name_of(path) if place == paths.NUMBERS.parent else f"file.{path}"
        verdict, why = (FAIL, wrong) if wrong else (PASS, "what its stage makes of the results")
        if wrong and path.suffix in COMPARED and path.exists() and any(packages.wrong(paths.REQUIREMENTS)):
            verdict, why = NOT_RUN, f"{wrong}; but other packages than those of {paths.REQUIREMENTS} drew it here"
        yield row(name, verdict, why, accuses=[path])
    if place == paths.FIGURES and made:
        given = {path for kind in ("*.pdf", "*.png") for path in paths.FIGURES.rglob(kind)}
        for path in sorted(given - made):
            yield row(f"file.{path}", FAIL, "no stage makes it of these results", accuses=[path])


COMPARED = {".png": content.picture, ".pdf": content.drawing}


def _other_content(made, given):
    """Where the file ``given`` says something else than ``made``, or None."""
    if not given.exists():
        return f"{given} is missing"
    if given.suffix in COMPARED:
        wrong = COMPARED[given.suffix](made.read_bytes(), given.read_bytes())
    else:
        wrong = content.text(*(path.read_text(encoding="utf-8", errors="replace") for path in (made, given)))
    return wrong and f"{given}: {wrong}"


def _typeset(folder, params):
    """A row on the PDF, made of the tables that were made once more and of the figures as they are."""
    name = f"file.{paths.PDF}"
    if not paths.PDF.exists():
        return row(name, NOT_RUN, f"{paths.PDF} is not there")
    if shutil.which("latexmk") is None:
        return row(name, NOT_RUN, "latexmk is not there to make it once more")
    for path in (folder / paths.FIGURES).rglob("*.pdf"):
        given = path.relative_to(folder)
        if given.exists():
            shutil.copy(given, path)
    try:
        rerun.here(folder, params, "paper")
    except (OSError, ValueError) as error:
        return row(name, FAIL, f"it cannot be made once more: {store.one_line(error)}")
    made, given = (folder / paths.PDF).read_bytes(), paths.PDF.read_bytes()
    if made == given:
        return row(name, PASS, "what its stage makes of the tables and figures, to the byte")
    here, there = content.typesetter(made), content.typesetter(given)
    if here != there and there:
        return row(name, NOT_RUN, f"typeset by {there}, here by {here}: they cannot be compared; read it")
    return row(name, FAIL, "not what the text, the tables and the figures give")


def _lint():
    for path in paths.TEXTS:
        if not path.exists():
            return row("lint.ms.tex", NOT_RUN, f"{path} is not there")
        if found := verification.lint(path.read_text(encoding="utf-8"), store.read_macros(paths.NUMBERS)):
            line, number, advice = found[0]
            why = f"line {line} of {path}: {number} is typed by hand; {advice} ({len(found)} in all)"
            return row("lint.ms.tex", FAIL, why)
    return row("lint.ms.tex", PASS, "no result is typed by hand")
