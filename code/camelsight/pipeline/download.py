"""One file over HTTP, whole or not at all: resumed, checked at its first bytes, hashed as it is written.

While it comes it is ``NAME.part``; ``NAME.part.json`` keeps what the server said of it, so that the next try can tell
whether the file over there is still the same one.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request

CHUNK = 1 << 20
HEAD = 4096  # bytes that ``check`` sees, or all where there are fewer
TIMEOUT = 60  # seconds without a byte
TRIES = 6  # in a row that bring nothing new
LONGEST_WAIT = 60  # seconds
WORTH_ANOTHER_TRY = (408, 425, 429)  # and every 5xx


class _Refused(Exception):
    """This source does not have the file."""


class _Broken(Exception):
    """This source may have it at the next try."""


def fetch(urls, path, *, size=None, digest=None, check=None, on_size=None, wait=None):
    """Fetch ``path`` from the first of ``urls`` that has it; returns (sha256, URL). What is there of it is continued.

    ``size`` in bytes and the sha256 ``digest`` are what the file must have, where they are known. ``check(head)`` gets
    its first bytes and raises ValueError if these are not its. ``on_size(bytes)`` is told how much is there, also when
    that became less; ``wait(seconds, reason)`` is called between two tries and sleeps. A broken connection is resumed
    only where the server can say that its file is the same (ETag, Last-Modified), or where ``digest`` will tell.
    ValueError in one line if no source has it; what came stays for the next time.
    """
    wait = wait or (lambda seconds, reason: time.sleep(seconds))
    reasons = []
    with _Part(path, on_size or (lambda size: None)) as part:
        if part.size and part.size == part.total:
            with contextlib.suppress(_Broken):
                _verify(part, digest)
                return part.move_to(path)
        for url in urls:
            try:
                _persist(url, part, size, digest, check, wait)
                return part.move_to(path)
            except _Refused as error:
                reasons.append(f"{error} from {url}")
    raise ValueError("; ".join(reasons) or "there is no source to fetch it from")


def _persist(url, part, size, digest, check, wait):
    """Try until the file is whole, or ``TRIES`` times in a row brought nothing new."""
    failures, most = 0, part.size
    while True:
        try:
            _continue(url, part, size, digest, check)
            return _verify(part, digest)
        except _Broken as error:
            failures = failures + 1 if part.size <= most else 1
            most = max(most, part.size)
            if failures == TRIES:
                raise _Refused(f"{error}, {TRIES} times in a row,") from None
            wait(min(2**failures, LONGEST_WAIT), str(error))


def _continue(url, part, size, digest, check):
    """One request, and what it brings: the rest of the file, or all of it."""
    with _request(url, part, digest) as response:
        resumed = response.status == 206
        total, first = _announced(response)
        if size is not None and total not in (None, size):
            raise _Refused(f"expected {size:,} bytes, got a file of {total:,}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise _Refused(f"expected the file as it is, got it as {response.headers['Content-Encoding']}")
        chunks = _chunks(response)
        if resumed:
            if first != part.size or not part.same(response.headers, total):
                part.start_over()
                raise _Broken("got another file than the one begun; starting over")
            part.pieces += 1
        else:
            head = b""
            while len(head) < HEAD and (chunk := next(chunks, b"")):
                head += chunk
            if total is not None and len(head) < min(HEAD, total):
                raise _Broken(f"the connection closed after {len(head):,} of {total:,} bytes")
            if check is not None:
                try:
                    check(head)
                except ValueError as error:
                    raise _Refused(str(error)) from None
            part.start_over(url, response.headers, total)
            part.write(head)
        for chunk in chunks:
            part.write(chunk)
    expected = total if size is None else size
    if expected is not None and part.size < expected:
        raise _Broken(f"the connection closed after {part.size:,} of {expected:,} bytes")
    if expected is not None and part.size > expected:
        part.start_over()
        raise _Refused(f"expected {expected:,} bytes, got more")


def _request(url, part, digest):
    headers = {"User-Agent": "camelsight"} | part.range_headers(trusted=digest is not None)
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            part.start_over()
            raise _Broken("got a file shorter than what is here; starting over") from None
        kind = _Broken if error.code >= 500 or error.code in WORTH_ANOTHER_TRY else _Refused
        raise kind(f"got {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        kind = _Refused if isinstance(reason, ssl.SSLCertVerificationError) else _Broken
        raise kind(f"no connection ({reason})") from None
    if response.status not in (200, 206):
        response.close()
        raise _Refused(f"got {response.status} {response.reason}")
    return response


def _announced(response):
    """Total size, or None where the server does not say, and the position of the first byte that comes."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match:
            return None, None
        return None if match[2] == "*" else int(match[2]), int(match[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None, 0


def _chunks(response):
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(f"the connection was lost ({error})") from None
        if not chunk:
            return
        yield chunk


def _verify(part, digest):
    """Pieces that do not make the file of ``digest`` are thrown away; a file of one piece is kept, it may be meant."""
    if digest is None or part.sha256.hexdigest() == digest:
        return
    if part.pieces > 1:
        part.start_over()
        raise _Broken("the pieces do not make the file that is wanted; starting over")
    raise _Refused(f"expected sha256 {digest}, got {part.sha256.hexdigest()}")


class _Part:
    """The unfinished file: its size, its sha256 so far, and what the server said of it."""

    def __init__(self, path, on_size):
        self.path, self.record_path, self.on_size = f"{path}.part", f"{path}.part.json", on_size

    def __enter__(self):
        self.file = open(self.path, "a+b")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise ValueError(f"{self.path} is being written by another process; wait for it to end") from None
        except OSError:
            pass  # a file system without locks
        self.record = {}
        with contextlib.suppress(OSError, TypeError, ValueError), open(self.record_path, encoding="utf-8") as file:
            self.record = dict(json.load(file))
        self.file.seek(0)
        self.sha256, self.size = hashlib.file_digest(self.file, "sha256"), self.file.tell()
        self.pieces = 2 if self.size else 0  # how many there were is not known, more than one is likely
        self.on_size(self.size)
        return self

    def __exit__(self, *_):
        self.file.close()
        if self.size == 0:
            for path in (self.path, self.record_path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    @property
    def total(self):
        return self.record.get("total")

    def range_headers(self, trusted):
        """Ask for what is missing, on condition that the file is the same; ``trusted``: it will be told in the end."""
        etag, modified = self.record.get("etag"), self.record.get("modified")
        if not self.size or not (etag or modified or trusted):
            return {}
        strong = etag if etag and not etag.startswith("W/") else modified
        return {"Range": f"bytes={self.size}-"} | ({"If-Range": strong} if strong else {})

    def same(self, headers, total):
        """Whether a partial answer is of the file that was begun: what it says again of it has not changed."""
        said = {"etag": headers.get("ETag"), "modified": headers.get("Last-Modified"), "total": total}
        return all(value is None or value == self.record.get(key, value) for key, value in said.items())

    def start_over(self, url=None, headers=None, total=None):
        """Forget what there is; with ``headers``, begin the file that they announce."""
        self.file.truncate(0)
        self.size, self.sha256, self.pieces, self.record = 0, hashlib.sha256(), 0, {}
        if headers is not None:
            said = {"url": url, "etag": headers.get("ETag"), "modified": headers.get("Last-Modified"), "total": total}
            self.record, self.pieces = {key: value for key, value in said.items() if value is not None}, 1
        with open(self.record_path, "w", encoding="utf-8") as file:
            json.dump(self.record, file)
        self.on_size(0)

    def write(self, chunk):
        self.file.write(chunk)
        self.sha256.update(chunk)
        self.size += len(chunk)
        self.on_size(self.size)

    def move_to(self, path):
        """Put the whole file into place; returns (sha256, URL)."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.path, path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.record_path)
        return self.sha256.hexdigest(), self.record["url"]
