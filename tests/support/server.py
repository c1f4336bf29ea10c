"""A web server on 127.0.0.1 that misbehaves on command, for tests.

    with Server({"/a.zip": data}) as server:
        server.script("/a.zip", Cut(1000), Status(500))   # the first two requests; then it behaves
        server.always("/b.zip", Status(404))
        server.url("/a.zip"); server.log; server.ranges("/a.zip")

It speaks HTTP/1.1 with ETag, Last-Modified, Range and If-Range as real servers do, and gives every connection a thread
of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

from tests.support.loopback import Loopback

os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # also for the processes that tests start
LAST_MODIFIED = "Tue, 05 Feb 2019 10:00:00 GMT"


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How one request is answered; left out, as a good server does."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent instead of the file, and it is not a file: no ETag, no ranges."""
    cut_at: int | None = None
    """Bytes of the body after which the connection is closed."""
    piece_bytes: int = 1 << 16
    pause_s: float = 0.0
    """Pause after each piece."""
    hang_s: float = 0.0
    """Pause before the answer."""
    length_off_by: int = 0
    """What Content-Length says too much (or, negative, too little)."""
    has_ranges: bool = True
    has_stamp: bool = True
    has_length: bool = True
    ignores_if_range: bool = False
    range_off_by: int = 0
    """By how much the part that comes begins elsewhere than asked."""
    redirect: str = ""


GOOD = Behaviour()


def cut(at: int) -> Behaviour:
    """The connection ends after `at` bytes of the body."""
    return Behaviour(cut_at=at)


def status(code: int, **headers: str) -> Behaviour:
    """An error; underscores in header names become dashes."""
    return Behaviour(status=code, headers={key.replace("_", "-"): value for key, value in headers.items()}, body=b"no")


def page(title: str, code: int = 200) -> Behaviour:
    """An HTML page instead of the file."""
    html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body>no</body></html>"
    return Behaviour(status=code, headers={"Content-Type": "text/html; charset=utf-8"}, body=html.encode())


def redirect(to: str, code: int = 302) -> Behaviour:
    """Go elsewhere."""
    return Behaviour(status=code, redirect=to, body=b"")


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> str:
        """What range was asked for; empty for the whole."""
        return self.headers.get("range", "")


class Server(Loopback):
    """Files by path, a script of misbehaviour for each path, and a log of what was asked."""

    def __init__(
        self, files: Mapping[str, bytes] | None = None, *, certificate: Path | None = None, host: str = "127.0.0.1"
    ) -> None:
        self.files = dict(files or {})
        self.log: list[Request] = []
        self.sent_bytes = 0
        self._scripts: dict[str, list[Behaviour]] = {}
        self._always: dict[str, Behaviour] = {}
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            owner = server

        super().__init__(Handler, host)
        self._host, self._scheme = host, "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self._scheme = "https"

    def url(self, path: str = "") -> str:
        """The URL of a path."""
        return f"{self._scheme}://{self._host}:{self.port}{path}"

    def script(self, path: str, *behaviours: Behaviour) -> None:
        """How the next GET requests for a path are answered, one after the other."""
        with self._lock:
            self._scripts.setdefault(path, []).extend(behaviours)

    def always(self, path: str, behaviour: Behaviour) -> None:
        """How all requests for a path are answered for which there is no script."""
        self._always[path] = behaviour

    def forget(self) -> None:
        """Drop what is left of the scripts, and the log."""
        with self._lock:
            self._scripts.clear()
        self.log.clear()

    def requests(self, path: str, method: str = "GET") -> list[Request]:
        """What was asked for a path."""
        return [request for request in self.log if request.path == path and request.method == method]

    def ranges(self, path: str) -> list[str]:
        """The ranges that were asked of a path, in order."""
        return [request.range for request in self.requests(path)]

    def next_behaviour(self, path: str, method: str) -> Behaviour:
        """Take the next behaviour of a path's script."""
        with self._lock:
            script = self._scripts.get(path, [])
            return script.pop(0) if script and method == "GET" else self._always.get(path, GOOD)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Server

    def do_GET(self) -> None:
        path = unquote(self.path)
        self.owner.log.append(Request(self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        behaviour = self.owner.next_behaviour(path, self.command)
        time.sleep(behaviour.hang_s)
        data = self.owner.files.get(path.partition("?")[0]) if behaviour.body is None else behaviour.body
        if data is None:
            behaviour, data = status(404), b"not found"
        try:
            self._answer(behaviour, data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, behaviour: Behaviour, data: bytes) -> None:
        start = self._range_start(behaviour, data)
        last = re.fullmatch(r"bytes=\d+-(\d+)", self.headers.get("Range", ""))
        end = len(data) if start is None or last is None else min(len(data), int(last[1]) + 1)
        body = data[start or 0 : end]
        self.send_response(behaviour.status or (200 if start is None else 206))
        headers = {"Content-Type": "application/octet-stream"}
        if behaviour.body is None and behaviour.has_stamp:
            headers |= {"ETag": f'"{etag(data)}"', "Last-Modified": LAST_MODIFIED}
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        if behaviour.has_length:
            headers["Content-Length"] = str(len(body) + behaviour.length_off_by)
        else:
            headers["Connection"] = "close"
        if behaviour.redirect:
            headers["Location"] = behaviour.redirect
        for key, value in (headers | dict(behaviour.headers)).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send(behaviour, body)

    def _range_start(self, behaviour: Behaviour, data: bytes) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        holds = behaviour.ignores_if_range or condition in {None, f'"{etag(data)}"', LAST_MODIFIED}
        if match is None or not behaviour.has_ranges or behaviour.body is not None or not holds:
            return None
        return int(match[1]) + behaviour.range_off_by

    def _send(self, behaviour: Behaviour, body: bytes) -> None:
        end = len(body) if behaviour.cut_at is None else behaviour.cut_at
        for at in range(0, min(end, len(body)), behaviour.piece_bytes):
            piece = body[at : min(at + behaviour.piece_bytes, end)]
            self.wfile.write(piece)
            self.owner.sent_bytes += len(piece)
            time.sleep(behaviour.pause_s)
        if behaviour.cut_at is not None or behaviour.length_off_by or not behaviour.has_length:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


def etag(data: bytes) -> str:
    """The tag of a file's bytes."""
    return hashlib.sha256(data).hexdigest()[:16]
