"""The PDF, by latexmk."""

import errno
import os
import re
import shutil
import subprocess

from camelsight.pipeline import cli, paths, store

LOG_TAIL = 3
ROOM = 1 << 22  # bytes; less than TeX needs


def main(params):
    build = paths.PDF.parent / "build"
    shutil.rmtree(build, ignore_errors=True)  # what an interrupted run left there can be unreadable
    command = ["latexmk", "-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error"]
    result = subprocess.run(
        [*command, f"-outdir={build.name}", f"{paths.PDF.stem}.tex"],
        cwd=paths.PDF.parent,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        errors = re.findall(r"^\S+:\d+: .*|^! .*", result.stdout, re.MULTILINE)[:LOG_TAIL]
        if not errors and shutil.disk_usage(paths.PDF.parent).free < ROOM:  # which TeX does not say
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reason = "; ".join(errors) or "no error line in its output"
        raise ValueError(f"latexmk failed on {paths.PDF.with_suffix('.tex')}: {reason} (see {build}/ms.log)")
    log = (build / "ms.log").read_text(encoding="utf-8", errors="replace")
    if loose := re.findall(r"(?:Citation|Reference) `([^']+)'", log):
        raise ValueError(f"expected every citation and reference to lead somewhere, got undefined {', '.join(loose)}")
    store.write_bytes(paths.PDF, (build / paths.PDF.name).read_bytes())


if __name__ == "__main__":
    cli.run_stage(main)
