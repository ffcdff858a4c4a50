"""A trained network by itself, for maps of one's own: ``camelsight.load("IllustrisTNG", "original")``."""

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from camelsight.analysis import attributions, dataset, networks
from camelsight.ground import fields, theta
from camelsight.inference import training
from camelsight.interpretation import attribution
from camelsight.pipeline import cli, leftovers, params, paths, store
from camelsight.referee import pack


@dataclass(frozen=True)
class Trained:
    """The network of a suite and case, with what a raw map goes through before it, and parameters after it."""

    suite: str
    case: str
    net: torch.nn.Module  # (B, C, n, n) scaled maps -> (B, 12): normalised means, then standard deviations
    record: dict  # of the cut: digests, and of each field statistics_train and statistics_all in signed log10
    params: params.Params  # of the run

    def scale(self, maps, index=0):
        """Raw maps ``(n, n)``, ``(B, n, n)`` or ``(B, C, n, n)`` as ``(B, C, n, n)`` float32 that the network takes.

        Channels are the fields of the run, in CMD's units; several of them are needed where it has several. Maps are
        cut as the case says. ``index`` is that of the first map in CAMELS (15 maps a simulation): the noise of a
        random fill is drawn for it. ValueError if the maps have another size, or hold what the fields cannot.
        """
        names, n = self.params.fields, self.params.maps.pixels
        maps, channels = np.asarray(maps, dtype=np.float32), len(names)
        single = channels == 1 and maps.ndim in (2, 3)
        if maps.shape[-2:] != (n, n) or not (single or (maps.ndim in (3, 4) and maps.shape[-3] == channels)):
            what = f"{n} x {n} pixels" + (f" of {', '.join(names)}" if channels > 1 else "")
            raise ValueError(f"expected maps of {what}, got an array {maps.shape}; average or cut them first")
        maps = maps.reshape(-1, channels, n, n)
        for name, one in zip(names, np.moveaxis(maps, 1, 0), strict=True):
            known, low = fields.FIELDS[name], {"above 0": np.nextafter(0, 1), "at least 0": 0}
            if not (np.isfinite(one).all() and one.min() >= low.get(known.least, -np.inf)):
                what = "surface densities in (Msun/h)/(Mpc/h)^2" if known.is_mass else f"{known.words} in CMD's units"
                raise ValueError(f"expected {what}, all {known.least}, got others; take no log")
        indices = index + np.arange(len(maps))
        ranges = dataset.log10_ranges(self.params, self.record)
        cut = dataset.cut_maps(self.params, self.suite, self.case, maps, indices, ranges)
        return torch.from_numpy(dataset.scaled(cut, dataset.scales(self.params, self.record)))

    def predict(self, maps, index=0):
        """``{parameter: (mean, sigma)}`` in physical units, arrays ``(B,)``, of raw maps as ``scale`` takes them."""
        predicted = training.predict(self.net, self.scale(maps, index).to(cli.device()))
        mean, sigma = (values.double().cpu().numpy() for values in predicted)
        mean, sigma = theta.denormalise(mean, self.suite), theta.denormalise_sigma(sigma, self.suite)
        return {name: (mean[:, one], sigma[:, one]) for one, name in enumerate(theta.NAMES)}

    def attribute(self, map_, index=0):
        """``{method: {parameter: (n, n)}}``: how much each pixel of one raw map adds to a normalised output.

        Arrays are ``(C, n, n)`` where the run has several fields. Methods, settings and parameters are those of
        ``attribute`` in the run's params.yaml.
        """
        spec, net = self.params.attribute, attribution.fold(self.net)
        values, _ = attributions.of_map(
            self.params, self.suite, self.case, net, self.record, self.scale(map_, index)[0], index, spec,
            symmetric=spec.views == "mean8",
        )  # fmt: skip
        return {
            method: dict(zip(spec.parameters, stack.squeeze(1).cpu().numpy(), strict=True))
            for method, stack in values.items()
        }


def load(suite, case="original", run="."):
    """``Trained`` of a suite and case, from ``run``: the folder of a run, a checkout with DVC's cache, or an archive.

    An archive is one of ``make pack``. What a checkout lacks is taken from its cache, or fetched from its remote.
    ValueError if the run has no such network.
    """
    with tempfile.TemporaryDirectory() as folder:
        if Path(run).is_file():
            pack.read(run, folder)
            run = folder
        if not Path(run).is_dir():
            raise ValueError(f"expected the folder of a run, or an archive of make pack, got {run}, which is neither")
        with contextlib.chdir(run):
            loaded = params.load(paths.PARAMS)
            for value, known in ((suite, loaded.suites), (case, loaded.cases)):
                if value not in known:
                    raise ValueError(f"expected one of {', '.join(known)}, got {value!r}")
            with contextlib.chdir(_gathered(suite, case, folder)):
                net, _ = networks.trained(loaded, suite, case)
                record = store.read_json(paths.cut(suite, case))
    return Trained(suite, case, net.to(cli.device()).eval(), record, loaded)


def _gathered(suite, case, folder):
    """A folder with the files of a network: this one, or ``folder``, into which DVC puts what this one lacks."""
    needed = [path(suite, case) for path in (paths.weights, paths.hyperparameters, paths.cut)]
    if all(path.exists() for path in needed):
        return "."
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        files = DVCFileSystem(".", config=leftovers.repository_settings())
        for path in needed:
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            files.get_file(str(path), str(Path(folder, path)))
    except (DvcException, OSError) as error:
        raise ValueError(
            f"expected {needed[0]} in {Path.cwd()}, or in its DVC cache or remote, got none ({store.one_line(error)}); "
            "run dvc pull, or make paper"
        ) from None
    return folder
