import errno
import os
import re

import numpy as np
import pytest
import safetensors.torch
import torch

from camelsight.ground import cmd, theta
from camelsight.pipeline import checkpoints, map_files, paths, store, text_tables
from conftest import refused
from test_release import write_suite

SUITE = "IllustrisTNG"


def test_a_whole_set_is_read_as_it_was_written(tmp_path):
    write_suite(tmp_path, SUITE)
    opened = map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)
    assert isinstance(opened, np.memmap)
    np.testing.assert_array_equal(opened, np.load(tmp_path / cmd.maps_file_name(SUITE)))
    assert map_files.read_parameters(SUITE, 4, tmp_path).shape == (4, 6)


@pytest.mark.parametrize("length", [0, 5, 60, 1000, 61567])
def test_a_file_cut_short_anywhere_is_refused_in_one_line(tmp_path, length):
    write_suite(tmp_path, SUITE)
    path = tmp_path / cmd.maps_file_name(SUITE)
    path.write_bytes(path.read_bytes()[:length])
    with refused(r"expected an NPY file, .*Maps_Mtot|the copy is not whole"):
        map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((45, 16, 16), np.float32), r"expected \(60, 16, 16\) float32, got \(45, 16, 16\) float32"),
        (np.ones((60, 16, 16)), r"got \(60, 16, 16\) float64"),
        (np.ones((60, 32, 32), np.float32), r"got \(60, 32, 32\) float32"),
    ],
)
def test_another_shape_or_type_is_refused_with_both(tmp_path, array, message):
    np.save(tmp_path / cmd.maps_file_name(SUITE), array)
    with refused(message):
        map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)


def test_files_that_are_missing_or_no_parameters_of_the_set_are_refused(tmp_path):
    with refused("no such file"):
        map_files.open_maps(SUITE, "Mtot", 4, 16, tmp_path)
    write_suite(tmp_path, SUITE)
    path = tmp_path / cmd.params_file_name(SUITE)
    for text, message in (
        (path.read_text().rstrip().rpartition("\n")[0], r"expected \(4, 6\), got \(3, 6\) in params_LH"),
        ("<html>not found</html>\n", "expected a table of numbers"),
        (None, "no such file"),
    ):
        path.unlink() if text is None else path.write_text(text)
        with refused(message):
            map_files.read_parameters(SUITE, 4, tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    store.write_json(path, {"old": 1})
    with pytest.raises(KeyboardInterrupt), store.replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert store.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="space") as caught:
        checkpoints.PartialSet(tmp_path / "set", {"maps.npy": (4, 2)}, 2)
    assert "the disk is full" in store.one_line(caught.value)
    assert os.listdir(tmp_path / "set") == []


@pytest.mark.parametrize(
    "write",
    [
        lambda path: store.write_json(path, {"a": 1}),
        lambda path: store.write_arrays(path, a=np.ones(3)),
        lambda path: store.write_weights(path, torch.nn.Linear(2, 2)),
        lambda path: checkpoints.write(path, {"a": torch.ones(2)}),
    ],
)
def test_a_disk_that_fills_while_writing_leaves_the_old_file_alone(tmp_path, monkeypatch, write):
    path = tmp_path / "result"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        write(path)
    assert os.listdir(tmp_path) == ["result"] and path.read_text() == "old"


def test_a_partial_set_whose_files_were_half_moved_starts_anew(tmp_path):
    """Killed between two moves, a set once resumed as finished, with zeros for the file that had gone."""
    first = checkpoints.PartialSet(tmp_path / "set", {"a.npy": (1,), "b.npy": (1,)}, 1)
    first.done(0)
    os.replace(tmp_path / "set" / "a.npy", tmp_path / "a.npy")
    assert checkpoints.PartialSet(tmp_path / "set", {"a.npy": (1,), "b.npy": (1,)}, 1).missing.tolist() == [0]


def test_a_leftover_of_a_killed_start_does_not_stop_the_finished_set(tmp_path):
    partial = checkpoints.PartialSet(tmp_path / "set", {"a.npy": (1,)}, 1)
    (tmp_path / "set" / ".a.npy.x.npy").touch()
    partial.move_to({"a.npy": tmp_path / "maps" / "a.npy"})
    assert os.listdir(tmp_path / "maps") == ["a.npy"] and not (tmp_path / "set").exists()


def test_a_partial_set_goes_on_where_it_stopped(tmp_path):
    first = checkpoints.PartialSet(tmp_path / "set", {"maps.npy": (4, 2)}, 2)
    first.arrays["maps.npy"][0:2] = 7
    first.done(0)
    second = checkpoints.PartialSet(tmp_path / "set", {"maps.npy": (4, 2)}, 2)
    assert second.missing.tolist() == [1]
    second.arrays["maps.npy"][2:4] = 8
    second.done(1)
    second.move_to({"maps.npy": tmp_path / "maps" / "maps.npy"})
    assert np.load(tmp_path / "maps" / "maps.npy").tolist() == [[7, 7], [7, 7], [8, 8], [8, 8]]
    assert not (tmp_path / "set").exists()


def test_weights_survive_the_round_trip_and_have_one_identity(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    store.write_weights(tmp_path / "weights.safetensors", network)
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    before = store.tensor_digest(other.state_dict())
    store.read_weights(tmp_path / "weights.safetensors", other)
    assert store.tensor_digest(other.state_dict()) == store.tensor_digest(network.state_dict()) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own | {"weight": own["weight"][:1]}, r"\(2, 3\) float32 as 'weight' in .*, got \(1, 3\) float32"),
        (lambda own: own | {"weight": own["weight"].double()}, r"\(2, 3\) float32 as 'weight' in .*, got .* float64"),
        (lambda own: own | {"more": torch.ones(1)}, r"expected nothing as 'more' in .*, got \(1,\) float32"),
        (lambda own: {"weight": own["weight"]}, r"expected \(2,\) float32 as 'bias' in .*, got nothing"),
        (lambda own: own | {"bias": own["bias"] / 0}, "NaN or infinity in bias"),
        (lambda own: own | {"more": torch.ones(10**6)}, r"expected at most 65,568 bytes of weights in .*, got 4,000,"),
        (lambda own: 10, "got a damaged file: "),
        (lambda own: -1, "got a damaged file: "),
    ],
)
def test_weights_of_another_network_or_damaged_get_one_line(change, message, tmp_path):
    path, network = tmp_path / "weights.safetensors", torch.nn.Linear(3, 2)
    torch.nn.init.ones_(network.bias)
    changed = change({name: tensor.detach() for name, tensor in network.state_dict().items()})
    store.write_weights(path, network)
    path.write_bytes(path.read_bytes()[:changed] if isinstance(changed, int) else safetensors.torch.save(changed))
    with refused(message):
        store.read_weights(path, network)


def test_the_digest_of_weights_sees_one_bit_and_a_name():
    tensors = {"a": torch.zeros(3), "b": torch.ones(2)}
    digest = store.tensor_digest(tensors)
    assert store.tensor_digest(dict(reversed(tensors.items()))) == digest
    assert store.tensor_digest(tensors | {"a": torch.tensor([0, 0, 1e-45])}) != digest
    assert store.tensor_digest({"a": tensors["a"], "c": tensors["b"]}) != digest


def test_files_are_readable_by_others(tmp_path):
    """Temporary files are private to their user; what replaces a result must not be."""
    store.write_text(tmp_path / "a.txt", "x")
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


TABLE = np.array(
    [[0.309, 0.979, 3.11234, 1.12194, 0.6685, 0.53182], [0.3026, 0.9394, 3.42001, 3.96137, 1.03311, 1.1607]]
)
PLAIN = ["0.309 0.979 3.11234 1.12194 0.6685 0.53182", "0.3026 0.9394 3.42001 3.96137 1.03311 1.1607"]
NAMED = "#Name  Omega_m  sigma_8  A_SN1     A_AGN1  A_SN2  A_AGN2  seed\n"
OTHER = "A_SN1,A_AGN1,A_SN2,A_AGN2,Omega_m,sigma_8\n3.11234,1.12194,.6685,.53182,.309,.979\n"
OTHER += "3.42001,3.96137,1.03311,1.1607,.3026,.9394\n"


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(PLAIN),
        "\ufeff" + "\r\n".join(PLAIN) + "\r\n\r\n\n",
        "# made by hand\n" + "\n\n".join(f"  {line} # mine" for line in PLAIN),
        "\n".join(line.replace(" ", ",") for line in PLAIN),
        "\n".join(line.replace(" ", " ; ") for line in PLAIN),
        "omega_m sigma_8 A_SN1 A_AGN1 A_SN2 A_AGN2\n" + "\n".join(PLAIN),
        "\n".join(f"{n} {line}" for n, line in enumerate(PLAIN)),
        "\n".join(f"{n}\t{line} {5000 + n}" for n, line in enumerate(PLAIN, start=1)),
        "\n".join(f"{line} {5000 + n}" for n, line in enumerate(PLAIN)),
        NAMED + "\n".join(f"  LH_{n} {line} {n}" for n, line in enumerate(PLAIN)),
        "\n".join(f"LH_{n} {line}" for n, line in reversed(list(enumerate(PLAIN)))) + f"\n1P_0 {PLAIN[0]}",
        OTHER,
    ],
)
def test_parameters_are_read_in_every_way_in_which_their_table_is_written(text, tmp_path):
    (tmp_path / "params.txt").write_bytes(text.encode())
    np.testing.assert_array_equal(text_tables.read_parameters(tmp_path / "params.txt"), TABLE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LH_0 1 2 3 4 5 6\nLH_2 1 2 3 4 5 6\n", "expected LH_0, LH_1, ... each once as names"),
        ("1P_0 1 2 3 4 5 6\n", "expected LH_0, LH_1, ... each once as names"),
        ("1 2 3\n1 2\n", "got: 2 words in line 2 after lines of 3"),
        ("1 2 3 4 5 six\n", "got: 'six'"),
        ("<html>\n1 2 3\n", "got: '<html>' in line 1"),
        ("# nothing\n", "got: no rows"),
    ],
)
def test_a_table_that_is_none_gets_one_line(text, message, tmp_path):
    (tmp_path / "params.txt").write_text(text, encoding="utf-8")
    with refused(re.escape(message)):
        text_tables.read_parameters(tmp_path / "params.txt")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("word", ["inf", "nan", "1e999"])
@pytest.mark.parametrize("column", range(8))
def test_no_number_in_a_table_is_no_reason_for_a_warning(word, column, tmp_path):
    """An infinity in the first or last column printed two lines of NumPy's before the one that was meant."""
    rows = [[*map(str, range(8))], [*map(str, range(8))]]
    rows[0][column] = word
    store.write_text(tmp_path / "params.txt", "\n".join(map(" ".join, rows)))
    assert len(text_tables.read_parameters(tmp_path / "params.txt")) == 2


def header(*kinds, names=("omega_m", "sigma_8")):
    return " ".join(f"{kind}_{name}" for kind in kinds for name in names)


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("# " + header("true", "mean", "sigma"), True),
        (header("true", "pred", "std"), True),
        ("# Om s8 Om s8 Om s8", True),
        ("# " + header("true", "mean", "sigma", names=("sigma_8", "omega_m")), False),
        ("# " + header("mean", "true", "sigma"), False),
        ("# true_omega_m mean_omega_m std_omega_m true_sigma_8 mean_sigma_8 std_sigma_8", False),
        ("# predictions of Tuesday", True),
    ],
)
def test_a_header_of_predictions_is_believed(line, good, tmp_path):
    (tmp_path / "case.txt").write_text(f"{line}\n  0.3 0.8 0.31 0.79 0.01 0.02  \n\n", encoding="utf-8")
    if good:
        assert [float(part[0, 0]) for part in text_tables.read_predictions(tmp_path / "case.txt")] == [0.3, 0.31, 0.01]
    else:
        with refused("expected true values, means and sigmas, in this order"):
            text_tables.read_predictions(tmp_path / "case.txt")


@pytest.mark.parametrize("parameters", [6, 2])
def test_predictions_come_back_from_their_text(parameters, tmp_path):
    arrays = np.random.default_rng(1).uniform(0.1, 4, (3, 30, parameters))
    text_tables.write_predictions(tmp_path / "case.txt", *arrays)
    np.testing.assert_allclose(text_tables.read_predictions(tmp_path / "case.txt"), arrays, rtol=1e-9)
    assert np.loadtxt(tmp_path / "case.txt").shape == (30, 3 * parameters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "got 1 rows of 3"),
        ("a b\n", "a table of numbers"),
        ("1 2 3 4 5 nan\n", "got 1 that are not, first in row 1"),
        ("1 2 3 4 5 -6\n", "at least 0 in .*, got -6"),
    ],
)
def test_a_file_that_holds_no_predictions_gets_one_line(text, message, tmp_path):
    (tmp_path / "case.txt").write_text(text)
    with refused(message):
        text_tables.read_predictions(tmp_path / "case.txt")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        *((data, "") for data in (b"", b"{", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}")),
        (b"\xff{}", "'utf-8' codec can't decode"),
    ],
    ids=["empty", "cut off", "deep", "digits", "no text"],
)
def test_a_file_that_is_no_json_gets_one_line(data, why, tmp_path):
    (tmp_path / "record.json").write_bytes(data)
    with refused(rf"expected JSON in .*record\.json, got: {why}") as caught:
        store.read_json(tmp_path / "record.json")
    assert len(str(caught.value)) < 500


def test_damaged_arrays_get_one_line_or_come_back_whole(tmp_path):
    path, values = tmp_path / "case.npz", np.arange(50.0)
    store.write_arrays(path, values=values)
    good, noticed = path.read_bytes(), 0
    damaged = [good[:length] for length in range(0, len(good), 40)]
    damaged += [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in range(0, len(good), 7)]
    for data in damaged:
        path.write_bytes(data)
        try:
            found = store.read_arrays(path)
        except ValueError as error:
            assert "\n" not in str(error)
            noticed += 1
        else:
            assert np.array_equal(next(iter(found.values())), values)
    assert noticed > 80


@pytest.mark.parametrize(
    "text", ["\xff", "5", "[5]", "[{}]", "- {id: [a], class: exact}", "- {id: a.b.c}", "- {id: a}"]
)
def test_published_numbers_that_are_none_get_one_line(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store.write_bytes(paths.EXPECTED, text.encode("latin-1"))
    with refused(r"expected a list of published numbers in paper/expected.yaml, got: ."):
        store.read_published("SIMBA", "original")


def test_published_numbers_are_those_of_one_suite_and_case():
    published = store.read_published("IllustrisTNG", "original")
    assert published["r2"] == dict(zip(theta.NAMES, (0.994, 0.982, 0.607, -0.02, 0.713, 0.085), strict=True))
    assert published["rmse"]["sigma_8"] == 0.016 and published["mean_sigma"]["A_AGN2"] == 0.397
    assert published["rms_relative_error"]["A_AGN1"] == 2.034
    assert store.read_published("IllustrisTNG", "kmax_10") == {"valid_loss": {"all": -9.9347}}
    assert store.read_published("SIMBA", "original") == {}


def test_a_checkpoint_keeps_the_one_before_and_a_damaged_one_is_set_aside(tmp_path, capsys):
    path = tmp_path / "train.pt"
    for epoch in range(3):
        checkpoints.write(path, {"epoch": epoch, "weights": torch.full((50,), float(epoch))})
    assert checkpoints.read(path, "cpu")["epoch"] == 2
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # one bit
    path.write_bytes(data)
    assert checkpoints.read(path, "cpu")["epoch"] == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "train.pt is damaged and now called train.pt.damaged" in said
    assert path.with_name("train.pt.damaged").exists() and not path.exists()
    checkpoints.remove(path)
    assert os.listdir(tmp_path) == ["train.pt.damaged"] and checkpoints.read(path, "cpu") is None


@pytest.mark.parametrize("length", [0, 10, 32, 500])
def test_a_checkpoint_cut_short_is_not_used(tmp_path, length):
    path = tmp_path / "train.pt"
    checkpoints.write(path, {"weights": torch.ones(500)})
    path.write_bytes(path.read_bytes()[:length])
    assert checkpoints.read(path, "cpu") is None and not path.exists()


def test_unfinished_work_is_saved_at_intervals_and_when_it_is_interrupted(tmp_path):
    path, weights = tmp_path / "train.pt", torch.zeros(3)
    with checkpoints.Checkpoint(path, "cpu", 1e9) as checkpoint:
        checkpoint.keep({"weights": weights})
    assert checkpoint.state is None and not path.exists(), "no interval has passed"
    with pytest.raises(KeyboardInterrupt), checkpoints.Checkpoint(path, "cpu", 1e9) as checkpoint:
        checkpoint.keep({"weights": weights})
        weights += 1  # of the epoch that is interrupted
        raise KeyboardInterrupt
    assert torch.equal(checkpoints.Checkpoint(path, "cpu", 0).state["weights"], torch.zeros(3))
    with checkpoints.Checkpoint(path, "cpu", 0) as checkpoint:
        checkpoint.keep({"weights": weights})
    assert torch.equal(checkpoints.read(path, "cpu")["weights"], torch.ones(3))


def test_a_claim_is_held_by_one_at_a_time(tmp_path):
    with store.claim(tmp_path / "a") as first, store.claim(tmp_path / "a") as second, store.claim(tmp_path / "b") as b:
        assert first and b and not second
    with store.claim(tmp_path / "a") as again:
        assert again
