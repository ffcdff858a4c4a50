"""Digests of the code that can change a result, a file for each stage; comments and docstrings do not count."""

from camelsight.pipeline import cli, paths, source, store


def main(params):
    for stage in source.stages():
        store.write_text(paths.code(stage), source.listing(stage))


if __name__ == "__main__":
    cli.run_stage(main)
