"""A server on 127.0.0.1 that speaks as much of the Hugging Face hub's API as its client asks for in a push, and where a
dataset is read from `hf://`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

TOKEN = "hf_of_the_tests"
LFS_BYTES = 1000
"""Files of more bytes go to the large file storage."""
_HEAD = "a" * 40


class Hub:
    """One repository: what was committed, and how often each file was sent."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.created: list[tuple[str, str, str]] = []
        """Name, kind and visibility of each repository asked for."""
        self.files = dict(files or {})
        """Path to content, after the last commit."""
        self.messages: list[str] = []
        """Of the commits."""
        self.sent: list[str] = []
        """SHA-256 of each large file that was uploaded."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self.broken = False
        """Whether it fails at the next commit."""
        self._large: dict[str, bytes] = {}
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON for a request."""
        ends: dict[str, Callable[[bytes], tuple[int, Any]]] = {
            "/api/repos/create": self._create,
            "/api/validate-yaml": lambda _: (200, {"errors": [], "warnings": []}),
            "/preupload/main": self._preupload,
            "/info/lfs/objects/batch": self._batch,
            "/commit/main": self._commit,
        }
        for end, act in ends.items():
            if path.endswith(end):
                return act(body)
        if listed := re.search(rf"/tree/(?:main|{_HEAD})/?(.*)", path):
            return 200, list(self._below(listed[1]))
        if re.search(rf"/paths-info/(?:main|{_HEAD})$", path):
            asked = parse_qs(body.decode()).get("paths", [])
            return 200, [self._entry(name, self.files[name]) for name in asked if name in self.files]
        if method == "GET" and path.startswith("/api/datasets/"):
            return 200, {"id": "/".join(path.split("/")[3:5]), "sha": _HEAD, "siblings": []}
        if method == "PUT":
            self._large[path.rpartition("/")[2]] = body
            self.sent.append(hashlib.sha256(body).hexdigest())
            return 200, {}
        return 404, {"error": "no such thing"}

    def _create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        private = asked.get("private", asked.get("visibility") == "private")  # as older and newer clients say it
        kind = asked.get("type", "model")
        self.created.append((f"{asked['organization']}/{asked['name']}", kind, "private" if private else "public"))
        return (409 if len(self.created) > 1 else 200), {"url": f"{self.url}/datasets/me/data"}

    def _preupload(self, body: bytes) -> tuple[int, Any]:
        found = [
            {
                "path": file["path"], "shouldIgnore": False, "oid": None,
                "uploadMode": "lfs" if file["size"] > LFS_BYTES else "regular",
            }
            for file in json.loads(body)["files"]
        ]  # fmt: skip
        return 200, {"files": found}

    def _batch(self, body: bytes) -> tuple[int, Any]:
        objects = [
            file if file["oid"] in self._large else
            file | {"actions": {"upload": {"href": f"{self.url}/large/{file['oid']}"}}}
            for file in json.loads(body)["objects"]
        ]  # fmt: skip
        return 200, {"transfer": "basic", "objects": objects}

    def _commit(self, body: bytes) -> tuple[int, Any]:
        if self.broken:
            self.broken = False
            return 500, {"error": "the hub is ill"}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self._large[value["oid"]]
            else:
                del self.files[value["path"]]
        return 200, {"commitUrl": f"{self.url}/datasets/me/data/commit/{_HEAD}", "commitOid": _HEAD, "success": True}

    def _below(self, folder: str) -> Iterator[dict[str, Any]]:
        """The folders and files in a folder, and in those."""
        start = f"{folder}/" if folder else ""
        below = {path: data for path, data in self.files.items() if path.startswith(start)}
        folders = {str(parent) for path in below for parent in PurePosixPath(path).parents}
        for inner in sorted(each for each in folders if each.startswith(start) and each != "."):
            yield {"type": "directory", "path": inner, "oid": _HEAD, "size": 0}
        yield from (self._entry(path, data) for path, data in below.items())

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324  # as git names its blobs


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.owner.asked.append(f"{self.command} {path}")
        large = path.startswith("/large/")  # a storage's own address: the client sends no token there
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and not large:
            self._send(401, b'{"error": "Invalid username or password."}')
            return
        _, found, name = path.replace(f"/resolve/{_HEAD}/", "/resolve/main/").partition("/resolve/main/")
        if found and name in self.owner.files:
            self._send_file(self.owner.files[name])
            return
        status, value = self.owner.answer(self.command, path, body)
        self._send(status, json.dumps(value).encode())

    def _send_file(self, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": _HEAD}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self._send(200, data, headers)
            return
        first, last = int(part[1]), min(int(part[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        always = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for key, value in {**always, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815  # the names are the base's

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the signature is the base's
        pass
