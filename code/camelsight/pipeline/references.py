"""The reference of a profile, R² of networks that differ in the seed of their training alone, and what it holds for."""

import dataclasses

from camelsight.pipeline import paths, source, store

DECIDES = ("seed", "fields", "maps", "split", "tune", "train")  # what R² depends on, with evaluate.views


def simulator(params):
    """The identity of the code that made the maps, where they are simulated."""
    return source.digest("maps")[:16] if params.maps.source == "twin" else None


def settings(params):
    """Digests of what a reference holds for, which is everything that R² depends on but the seed of the training."""
    blocks = {name: getattr(params, name) for name in DECIDES} | {"evaluate": params.evaluate.views}
    blocks["train"] = dataclasses.replace(params.train, seed=0)
    return {name: store.digest(value)[:16] for name, value in blocks.items()}


def load(params):
    """The record of the profile's reference, or None if there is none that holds for ``params`` and this code."""
    record, why_not = read(params)
    return None if why_not else record


def read(params):
    """The record of the profile's reference, None if there is none; and why it says nothing of a run, "" if it does."""
    path = paths.reference(params.profile)
    if not path.exists():
        return None, f"there is no {path}: make reference"
    record = store.read_json(path)
    if record.get("simulator") != simulator(params):
        return record, f"{path} is of maps that another version of the simulator made: make reference"
    ours, theirs = settings(params), record.get("settings") or {}
    other = sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))
    return record, f"{path} was made with other {', '.join(other)} in params.yaml" if other else ""
