"""Downloads from a server on this machine that cuts, lies, changes its mind, or behaves."""

import hashlib
import http.server
import io
import itertools
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from camelsight.ground import cmd
from camelsight.pipeline import download
from conftest import refused, until

SIMULATIONS, PIXELS = 4, 32
NAME = cmd.maps_file_name("IllustrisTNG")


def cmd_shaped(seed=0):
    """The bytes of a small maps file, 245,888 of them."""
    maps, file = np.random.default_rng(seed).lognormal(26, 1, (SIMULATIONS * 15, PIXELS, PIXELS)), io.BytesIO()
    np.save(file, maps.astype(np.float32))
    return file.getvalue()


WHOLE, OTHER = cmd_shaped(), cmd_shaped(1)
SIZE, DIGEST = len(WHOLE), hashlib.sha256(WHOLE).hexdigest()
PAGE = b"<!DOCTYPE html>" + b" " * (SIZE - 15)


@dataclass
class Server:
    """What the server has, and how it misbehaves; ``script`` holds a behaviour for each request to come, then none."""

    body: bytes = WHOLE
    ranges: bool = True
    etag: str | None = '"one"'
    modified: str | None = None
    length: bool = True
    rate: float | None = None  # bytes per second
    script: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server.state
        server.requests.append(dict(self.headers))
        act = server.script.pop(0) if server.script else {}
        if "status" in act:
            self.send_error(act["status"])
            return
        for name in ("body", "etag", "modified"):
            if name in act:
                setattr(server, name, act[name])
        body, first, status = server.body, 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in (None, server.etag, server.modified) or act.get("deaf")
        if asked and server.ranges and unchanged:
            first, status = int(asked[1]) + act.get("shift", 0), 206
            if first >= len(body):
                self.send_error(416)
                return
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if server.length:
            self.send_header("Content-Length", str(len(body) - first + act.get("lie", 0)))
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.modified:
            self.send_header("Last-Modified", server.modified)
        self.end_headers()
        rest = body[first : act.get("cut", len(body))]
        if "silent" in act:
            self.wfile.write(body[first : act["silent"]])
            server.release.wait(60)
            return
        if "reset" in act:  # what is on its way is lost
            self.wfile.write(body[first : act["reset"]])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        if server.rate is None:
            self.wfile.write(rest)
            return
        for start in range(0, len(rest), 4096):
            self.wfile.write(rest[start : start + 4096])
            time.sleep(4096 / server.rate)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http.server.ThreadingHTTPServer, "handle_error", lambda *_: None)  # a client that was killed
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.state = Server(url=f"http://127.0.0.1:{listening.server_address[1]}/{NAME}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield listening.state
        listening.shutdown()
        thread.join()


def check(head):
    cmd.check_maps(cmd.read_header(head, NAME), SIMULATIONS, PIXELS, NAME)


def fetch(server, folder, urls=None, **options):
    """Fetch into ``folder`` without pauses; the reasons of the pauses there would have been are in ``waited``."""
    options = {"size": SIZE, "check": check, "wait": lambda seconds, reason: waited.append((seconds, reason))} | options
    waited = options.pop("waited", [])
    return download.fetch(urls or [server.url], folder / NAME, **options)


def is_whole(folder):
    return (folder / NAME).read_bytes() == WHOLE and os.listdir(folder) == [NAME]


def test_a_full_answer_is_put_in_place_with_its_digest_and_source(server, tmp_path):
    sizes = []
    assert fetch(server, tmp_path, on_size=sizes.append) == (DIGEST, server.url)
    assert is_whole(tmp_path) and sizes[-1] == SIZE and len(server.requests) == 1


def test_a_connection_cut_at_any_byte_fifty_times_still_gives_the_whole_file(server, tmp_path):
    rng = np.random.default_rng(1)
    special = [1, 127, 128, 4095, 4096, 4097, SIZE - 1]
    for number, cut in enumerate([*special, *rng.integers(1, SIZE, 43)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        server.script[:] = [{"cut": int(cut)}]
        assert fetch(server, folder) == (DIGEST, server.url)
        assert is_whole(folder) and "Range" not in server.requests[-2]
        assert server.requests[-1].get("Range") == (f"bytes={cut}-" if cut >= download.HEAD else None)


def test_one_download_survives_fifty_cuts(server, tmp_path):
    cuts = sorted(int(cut) for cut in np.random.default_rng(2).integers(5000, SIZE, 50))
    server.script[:] = [{"cut": cut} for cut in cuts]
    waited = []
    assert fetch(server, tmp_path, waited=waited)[0] == DIGEST
    assert is_whole(tmp_path) and len(waited) == 50 and max(seconds for seconds, _ in waited) == 2


def test_a_connection_that_is_reset_is_resumed(server, tmp_path):
    for number, position in enumerate(np.random.default_rng(3).integers(1, SIZE, 20)):
        folder = tmp_path / str(number)
        folder.mkdir()
        server.script[:] = [{"reset": int(position)}]
        waited = []
        assert fetch(server, folder, waited=waited)[0] == DIGEST and is_whole(folder) and len(waited) == 1


def test_what_an_earlier_run_left_is_continued(server, tmp_path):
    server.script[:] = [{"cut": 100_000}, *[{"status": 503}] * download.TRIES]
    with refused(f"got 503 Service Unavailable, {download.TRIES} times in a row, from http"):
        fetch(server, tmp_path)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 100_000
    assert fetch(server, tmp_path)[0] == DIGEST
    assert is_whole(tmp_path) and server.requests[-1]["If-Range"] == '"one"'


def test_without_an_etag_the_date_holds_the_pieces_together(server, tmp_path):
    server.etag, server.modified = None, "Wed, 01 May 2024 00:00:00 GMT"
    server.script[:] = [{"cut": 100_000}, {"cut": 150_000}]
    assert fetch(server, tmp_path)[0] == DIGEST
    assert server.requests[-1]["If-Range"] == server.modified and server.requests[-1]["Range"] == "bytes=150000-"


def test_a_weak_etag_is_compared_here_because_a_server_may_not_use_it(server, tmp_path):
    server.etag = 'W/"one"'
    server.script[:] = [{"cut": 100_000, "body": OTHER}, {"body": WHOLE, "etag": 'W/"two"'}]
    assert fetch(server, tmp_path)[0] == DIGEST
    assert is_whole(tmp_path) and "If-Range" not in server.requests[1]


@pytest.mark.parametrize(
    ("has", "script", "options"),
    [
        ({"body": OTHER}, [{"cut": 100_000}, {"body": WHOLE, "etag": '"two"'}], {}),
        ({"body": OTHER}, [{"cut": 100_000}, {"body": WHOLE, "etag": '"two"', "deaf": True}], {}),
        ({"etag": None, "body": WHOLE[:-4]}, [{"cut": 100_000}, {"body": WHOLE}], {"size": None, "digest": DIGEST}),
        ({"ranges": False}, [{"cut": 100_000}, {"cut": 50_000}], {}),
        ({"length": False}, [{"cut": 100_000}], {}),
        ({}, [{"cut": 100_000}, {"shift": 1}], {}),
    ],
    ids=["another file", "If-Range ignored", "another size", "no ranges", "no length", "another position"],
)
def test_a_second_answer_that_does_not_continue_the_first_is_noticed(server, tmp_path, has, script, options):
    vars(server).update(has, script=script)
    assert fetch(server, tmp_path, **options)[0] == DIGEST and is_whole(tmp_path)


def test_without_a_validator_nothing_is_pieced_together(server, tmp_path):
    server.etag, server.body = None, OTHER
    server.script[:] = [{"cut": 100_000}, {"body": WHOLE}]
    assert fetch(server, tmp_path)[0] == DIGEST
    assert is_whole(tmp_path) and not any("Range" in request for request in server.requests)


def test_without_a_validator_a_known_digest_finds_the_wrong_piece(server, tmp_path):
    server.etag, server.body = None, OTHER
    server.script[:] = [{"cut": 100_000}, {"body": WHOLE}]
    waited = []
    assert fetch(server, tmp_path, digest=DIGEST, waited=waited)[0] == DIGEST and is_whole(tmp_path)
    assert [re.sub(" after.*", "", reason) for _, reason in waited] == [
        "the connection closed",
        "the pieces do not make the file that is wanted; starting over",
    ]


def test_a_file_of_another_digest_is_refused_and_kept_for_who_means_it(server, tmp_path):
    with refused(f"expected sha256 {'0' * 64}, got {DIGEST} from http"):
        fetch(server, tmp_path, digest="0" * 64)
    assert not (tmp_path / NAME).exists()
    assert fetch(server, tmp_path) == (DIGEST, server.url) and len(server.requests) == 1  # the pin was taken out
    assert is_whole(tmp_path)


def test_a_server_without_ranges_that_always_breaks_ends_in_one_line(server, tmp_path):
    server.ranges = False
    server.script[:] = [{"cut": 100_000}] * 20
    with refused(r"closed after 100,000 of 245,888 bytes, 6 times in a row, from http"):
        fetch(server, tmp_path)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("has", "script", "message"),
    [
        ({}, [{"lie": -100}], f"expected {SIZE:,} bytes, got a file of {SIZE - 100:,} from http"),
        ({}, [{"lie": 100}], f"expected {SIZE:,} bytes, got a file of {SIZE + 100:,} from http"),
        ({"body": WHOLE[:100_000]}, [], f"expected {SIZE:,} bytes, got a file of 100,000"),
        ({"body": PAGE}, [], r"expected an NPY file, got one that begins with b'<!DOCTYPE html> ' in Maps"),
        (
            {"body": WHOLE.replace(b"(60, 32, 32)", b"(60, 16, 64)")},
            [],
            r"expected \(60, 32, 32\) float32, got \(60, 16, 64\)",
        ),
    ],
    ids=["too short", "too long", "truncated", "page", "shape"],
)
def test_what_cannot_be_the_file_is_refused_at_once(server, tmp_path, has, script, message):
    vars(server).update(has, script=script)
    with refused(message):
        fetch(server, tmp_path)
    assert os.listdir(tmp_path) == [] and len(server.requests) == 1


def test_a_length_that_never_comes_ends_in_one_line(server, tmp_path):
    """The size of a params file is not known beforehand; one that announces more than it sends never ends well."""
    server.script[:] = [{"lie": 100}] * 20
    with refused(r"got a file shorter than what is here|closed after 245,888 of 245,988"):
        fetch(server, tmp_path, size=None)
    assert not (tmp_path / NAME).exists()


def test_404_goes_to_the_next_source_and_ends_in_one_line(server, tmp_path):
    server.script[:] = [{"status": 404}]
    assert fetch(server, tmp_path, [server.url + "?first", server.url]) == (DIGEST, server.url)
    (tmp_path / NAME).unlink()
    server.script[:] = [{"status": 404}, {"status": 403}]
    with refused(r"got 404 Not Found from \S+\?1; got 403 Forbidden from \S+\?2$"):
        fetch(server, tmp_path, [server.url + "?1", server.url + "?2"])
    assert os.listdir(tmp_path) == []


def test_503_then_200_is_tried_again_with_longer_and_longer_pauses(server, tmp_path):
    server.script[:] = [{"status": 503}] * 4
    waited = []
    assert fetch(server, tmp_path, waited=waited)[0] == DIGEST
    assert [seconds for seconds, _ in waited] == [2, 4, 8, 16]


def test_a_server_that_is_not_there_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with refused(r"no connection \(.*refused.*\), 6 times in a row, from http"):
        fetch(None, tmp_path, ["http://127.0.0.1:9/x"])
    assert os.listdir(tmp_path) == []


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    server.script[:] = [{"silent": 100_000}]
    waited = []
    assert fetch(server, tmp_path, waited=waited)[0] == DIGEST and is_whole(tmp_path)
    assert waited == [(2, "the connection was lost (timed out)")]
    server.release.set()


def test_a_second_source_goes_on_where_the_first_stopped_if_it_has_the_same_file(server, tmp_path):
    server.script[:] = [{"cut": 100_000}, {"status": 404}]
    assert fetch(server, tmp_path, [server.url + "?first", server.url]) == (DIGEST, server.url + "?first")
    assert is_whole(tmp_path) and server.requests[-1]["Range"] == "bytes=100000-"


def test_a_full_disk_is_no_reason_to_try_again(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download._Part, "write", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1


def test_two_processes_do_not_write_one_file(server, tmp_path):
    with download._Part(tmp_path / NAME, lambda size: None), refused("by another process"):
        fetch(server, tmp_path)


KILLED = """
import sys
from camelsight.pipeline import download
print(*download.fetch([sys.argv[1]], sys.argv[2], size=int(sys.argv[3])))
"""


def test_a_download_killed_in_the_middle_goes_on_where_it_was(server, tmp_path):
    server.rate = 400_000
    command = [sys.executable, "-c", KILLED, server.url, str(tmp_path / NAME), str(SIZE)]
    part = tmp_path / f"{NAME}.part"
    for goal in (50_000, 120_000):
        process = subprocess.Popen(command)
        until(lambda goal=goal: part.exists() and part.stat().st_size > goal)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert goal < part.stat().st_size < SIZE
    assert json.loads((tmp_path / f"{NAME}.part.json").read_text())["total"] == SIZE
    server.rate = None
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [DIGEST, server.url] and is_whole(tmp_path)
    starts = [int(request.get("Range", "bytes=0-")[6:-1]) for request in server.requests]
    assert starts == sorted(starts) and starts[0] == 0 and starts[1] > 50_000 and starts[2] > 120_000


def test_a_note_that_was_cut_off_is_as_good_as_none(server, tmp_path):
    for junk, (number, length) in itertools.product(("", "{", "[1]"), enumerate((1, 5000))):
        folder = tmp_path / f"{len(junk)}-{number}"
        folder.mkdir()
        (folder / f"{NAME}.part").write_bytes(b"?" * length)
        (folder / f"{NAME}.part.json").write_text(junk)
        assert fetch(server, folder)[0] == DIGEST and is_whole(folder)
