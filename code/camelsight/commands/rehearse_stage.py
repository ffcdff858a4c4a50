"""One stage of a rehearsal, in a process of its own and in the present folder: runs it, and writes what that took."""

import importlib
import resource
import sys
import time

from camelsight.pipeline import cli, params, paths, rerun, store


class Watch:
    """Listens to what every stage calls: progress, the reading of maps, trainings and their compilation."""

    def __init__(self):
        self.items, self.total, self.reading, self.loads = [], 0, 0.0, 0
        self.trainings, self.compiled = [], None
        self.start = time.monotonic()

    def now(self):
        return time.monotonic() - self.start

    def listen(self):
        """Put a watched function in the place of each one that it listens to."""
        from camelsight.analysis import dataset, networks
        from camelsight.inference import training

        watch = self

        class Progress(cli.Progress):
            def __init__(self, *arguments, **settings):
                watch.total += settings["total"]
                super().__init__(*arguments, **settings)

            def update(self, n=1, best=None):
                watch.items += [watch.now()] * int(n)
                return super().update(n, best)

        cli.Progress = Progress
        dataset.load = self._timed(dataset.load)
        networks.fit = self._trained(networks.fit)
        training._compiled = self._noted(training._compiled)

    def _timed(self, load):
        def timed(*arguments, **settings):
            before = self.now()
            try:
                return load(*arguments, **settings)
            finally:
                self.reading, self.loads = self.reading + self.now() - before, self.loads + 1

        return timed

    def _trained(self, fit):
        def trained(params, suite, case, hyperparameters, *arguments, on_epoch, **settings):
            before, ends = self.now(), []

            def listened(state):
                ends.append(self.now())
                on_epoch(state)

            try:
                return fit(params, suite, case, hyperparameters, *arguments, on_epoch=listened, **settings)
            finally:
                epochs = [end - begin for begin, end in zip([before, *ends], ends, strict=False)]
                self.trainings.append({"hidden": hyperparameters["hidden"], "epochs": epochs})

        return trained

    def _noted(self, compile_):
        def noted(network, *arguments):
            made = compile_(network, *arguments)
            self.compiled = made is not network
            return made

        return noted

    def record(self):
        import torch

        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return {
            "seconds": self.now(),
            **{key: getattr(self, key) for key in ("items", "total", "reading", "loads", "trainings", "compiled")},
            "host_bytes": max(peaks) * 1024,
            "device_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        }


def main():
    stage, *place = sys.argv[1:]
    importlib.import_module(f"camelsight.stages.{stage}")  # which is not the stage's own work
    watch = Watch()
    watch.listen()
    rerun.here(".", params.load(), stage, place=place)
    store.write_json(paths.REHEARSED, watch.record())


if __name__ == "__main__":
    cli.guard(main, prefix=" ".join(sys.argv[1:]))
