"""Standard input, output and error, for any locale and any starter of programs.

Imports Python's standard library alone: doctor uses it where nothing else is installed.
"""

import os
import sys

MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}  # by file descriptor


def prepare():
    """Let standard output write what its encoding lacks, such as ² in ASCII, as standard error does: \\xb2.

    A stream that was closed, as some starters of jobs close it, is nothing from now on: for Python it is None, and the
    next file that is opened would take its number.
    """
    for number, (name, mode) in enumerate(MODES.items()):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
    sys.stdout.reconfigure(errors="backslashreplace")
