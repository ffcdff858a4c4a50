"""Two fields at once, from the simulation to the PDF; and what ``make challenges`` says of them."""

import csv
import json
import os
import re
import subprocess

import numpy as np

from camelsight.pipeline import paths, store
from smoke import camelsight, check_out, finish, stages_run


def test_several_fields_run_to_the_pdf_and_challenges_say_which_tell_how_much(tmp_path):
    """Two fields of one suite, from simulation to PDF; every figure has both, and a table their shares."""
    folder = tmp_path / "fields"
    check_out(folder)
    text = (folder / "profiles/smoke.yaml").read_text()
    for before, after in {
        "fields: [Mtot]": "fields: [Mgas, Mcdm]",
        "suites: [IllustrisTNG, Nbody_IllustrisTNG]": "suites: [IllustrisTNG]",
        "  - kmax_1\n": "",
        "cuts: [kmax_1, max_1e12_random]": "cuts: [max_1e12_random]",
        "repeats: []": "repeats: [1]",
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    (folder / "params.yaml").write_text(text)
    table = finish(camelsight(folder, "challenges"))
    assert re.search(r"^Mgas \+ Mcdm +0\.00|^Mgas +0\.00|^Mcdm +0\.00", table, re.MULTILINE), table
    assert "Forward selection, by the validation maps:" in table
    assert "transfer: [fields]" in (folder / "params.yaml").read_text()
    output = finish(camelsight(folder, "paper", "--jobs", "2"))
    assert "transfer" not in stages_run(output) and stages_run(output)["repeat"] == 2
    for field in ("Mgas", "Mcdm"):
        assert (folder / paths.maps("IllustrisTNG", field)).exists()
    assert not (folder / paths.maps("IllustrisTNG", "Mtot")).exists()
    shares = (folder / paths.TABLES / "field_shares.tex").read_text()
    assert shares.index("Mgas") < shares.index("Mcdm")
    record = store.read_json(folder / paths.attribution_statistics("IllustrisTNG", "original"))
    assert record["networks"] == 2
    for by_method in record["field_shares"].values():
        for values in by_method.values():
            np.testing.assert_allclose(np.sum(values, axis=1), 1, rtol=1e-5)
    arrays = store.read_arrays(folder / paths.attributions("IllustrisTNG", "original"))
    assert arrays["density"].shape[1] == arrays["saliency"].shape[2] == 2
    with open(folder / paths.TABLES / "r2.csv", newline="") as file:
        assert all(float(row["seeds"]) > 0 for row in csv.DictReader(file))
    numbers = store.read_macros(folder / paths.NUMBERS)
    assert numbers["FieldWords"] == "gas density and dark matter density" and numbers["IsTotal"] == "0"
    assert numbers["HasTransferFields"] == "1" and numbers["AttributionNetworks"] == "2"
    assert (folder / paths.PDF).stat().st_size > 1e5
    judged = subprocess.run(
        [".venv/bin/python", "-m", "camelsight.referee.verify", "--json"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "code")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = {row["id"]: row for row in json.loads(judged.stdout)["rows"]}
    assert not [row for row in rows.values() if row["verdict"] == "FAIL"], judged.stdout[-3000:]
    assert rows["statistics.IllustrisTNG.Mgas"]["verdict"] == rows["data.IllustrisTNG"]["verdict"] == "PASS"
