"""Where in the cosmic web does a network see the cosmological parameters? It reproduces arXiv:2504.17839."""


def load(suite, case="original", run="."):
    """The trained network of a suite and case, ready for raw maps; see ``commands.loading``."""
    from camelsight.commands import loading  # the command line must not wait for torch

    return loading.load(suite, case, run)
