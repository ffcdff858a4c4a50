"""What ``make rehearse`` found of a profile on this machine, for every forecast."""

import functools

from camelsight.pipeline import machine, paths, store


def identity(loaded):
    """What a rehearsal holds for: this profile, but for its own forecast, on a machine with these devices."""
    profile = {key: value for key, value in store.plain(loaded).items() if key != "seconds"}
    return {"profile": store.digest(profile), **_devices(), "cores": machine.cores()}


@functools.cache
def _devices():
    from camelsight.pipeline import environment  # and with it torch, for which nobody waits without a rehearsal

    found = environment.read()
    return {key: found[key] for key in ("hardware", "cpu")}


def seconds(loaded, stage):
    """The forecast for a stage, such as train@SUITE-CASE; None where none was rehearsed, or elsewhere, or otherwise."""
    path = paths.rehearsal(loaded.profile)
    if not path.exists():
        return None
    record = store.read_json(path)
    return record["forecast"].get(stage) if record["identity"] == identity(loaded) else None
