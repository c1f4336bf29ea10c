"""A proxy on 127.0.0.1 before a storage, which answers badly by a seed.

    with FaultyProxy(("127.0.0.1", 9000), seed=3) as proxy:
        proxy.url; proxy.faults["cut"]

Of the requests a share gets 503 or 500 in place of an answer, 500 after the request was carried out, 409 where the
write is conditional, an answer that ends in its middle, or a late one. One request gets at most `in_a_row` faults.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

from tests.support.loopback import Loopback

_ANSWERS = {
    "503": (503, "SlowDown"),
    "500": (500, "InternalError"),
    "500 afterwards": (500, "InternalError"),
    "409": (409, "ConditionalRequestConflict"),
}
_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


class FaultyProxy(Loopback):
    """A server that forwards requests, but for those that the seed picks."""

    def __init__(
        self, upstream: tuple[str, int], *, seed: int, share: float = 0.4, in_a_row: int = 2, late_s: float = 0.02
    ) -> None:
        self.upstream = upstream
        self.faults = Counter[str]()
        """Faults so far, by name."""
        self.late_s = late_s
        self._random, self._share, self._in_a_row = random.Random(seed), share, in_a_row
        self._row = Counter[tuple[str, str]]()
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        super().__init__(Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, method: str, path: str, *, conditional: bool) -> str:
        """The fault of the next request, or nothing."""
        kinds = ["503", "500", "cut", "late"]
        if method in {"PUT", "POST", "DELETE"}:
            kinds.append("500 afterwards")
        if conditional:
            kinds += ["409", "409"]
        with self._lock:
            if self._row[method, path] >= self._in_a_row or self._random.random() >= self._share:
                self._row[method, path] = 0
                return ""
            self._row[method, path] += 1
            kind = self._random.choice(kinds)
            self.faults[kind] += 1
            return kind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultyProxy

    def forward(self) -> None:
        """Answer as the storage does, or as the fault says."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.owner.fault(self.command, self.path, conditional="If-None-Match" in self.headers)
        if fault in {"503", "500", "409"}:
            self._refuse(fault)
            return
        if fault == "late":
            time.sleep(self.owner.late_s)
        upstream = http.client.HTTPConnection(*self.owner.upstream, timeout=30)
        try:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
            upstream.request(self.command, self.path, body or None, headers)
            with upstream.getresponse() as answer:
                data = answer.read()
        finally:
            upstream.close()
        if fault == "500 afterwards":
            self._refuse(fault)
            return
        self.send_response_only(answer.status, answer.reason)
        for key, value in answer.getheaders():
            if key.lower() not in _HOP | {"content-length"}:
                self.send_header(key, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        if length is not None:
            self.send_header("Content-Length", length)
        if fault == "cut":
            self.close_connection = True
            if not data:
                return  # nor the head: what was carried out gets no answer
            data = data[: len(data) // 2]
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815  # the names are the base's

    def _refuse(self, fault: str) -> None:
        status, code = _ANSWERS[fault]
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{fault}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the base's
        """Keep the tests' output clean."""
