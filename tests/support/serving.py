"""A real server of `corpus serve` on 127.0.0.1, in a thread, with a random model that never ends a text by itself."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from corpus.generate.engine.model import Model, load
from corpus.generate.serve.config import ServeConfig
from corpus.generate.serve.server import Server, bind, of_model
from corpus.pipeline.tokenizer.files import of_model as files_of_model
from tests.support.sampling import save_model
from tests.support.server import LAST_MODIFIED  # noqa: F401  # sets NO_PROXY for 127.0.0.1

CONTEXT = 2048
HTTP = httpx.Client(timeout=60)
"""One client for all requests: to make one takes longer than an answer."""


def save_endless(folder: Path, context: int = CONTEXT) -> None:
    """The model's folder as `corpus train` leaves it: a text begins after the separator."""
    save_model(folder, context=context, ends=False)
    for name, content in files_of_model(folder).items():
        (folder / name).write_bytes(content)


@functools.cache
def endless_model(context: int = CONTEXT) -> Model:
    """The loaded model; every test may use it, none may change it."""
    with tempfile.TemporaryDirectory() as folder:
        save_endless(Path(folder), context)
        return load(Path(folder), device="cpu")


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    url: str
    stop: Callable[[], None]
    reports: list[str]

    def client(self, key: str = "none") -> OpenAI:
        """OpenAI's client, without retries."""
        return _client(f"{self.url}v1", key)

    def post(self, path: str, body: dict[str, Any] | bytes, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return HTTP.post(f"{self.url}{path}", content=content, headers=headers)

    def running(self) -> int:
        """Texts that are being written."""
        return int(HTTP.get(f"{self.url}health").json()["running"])

    def wait_for(self, running: int, waiting: int = 0, seconds: float = 20) -> None:
        """Wait until so many texts are being written and so many requests wait."""
        until = time.monotonic() + seconds
        while (now := HTTP.get(f"{self.url}health").json()) | {"running": running, "waiting": waiting} != now:
            assert time.monotonic() < until, now
            time.sleep(0.02)


@functools.cache
def _client(url: str, key: str) -> OpenAI:
    return OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)


@contextlib.contextmanager
def serving(
    model: Model | None = None, *, keys: Sequence[str] = (), folder: Path = Path("nowhere"), send_bytes: int = 0,
    **settings: Any,
) -> Iterator[Running]:  # fmt: skip
    """Serve a model, on a free port, until the context ends; `send_bytes` limits what the system buffers."""
    config = ServeConfig(port=0, **settings)
    reports: list[str] = []
    server = Server(config, of_model(model or endless_model(), folder, "endless"), keys, report=reports.append)
    found: list[str] = []
    is_up = threading.Event()

    def listening(url: str) -> None:
        found.append(url)
        is_up.set()

    bound = bind(config, has_keys=bool(keys))
    if send_bytes:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    thread = threading.Thread(target=server.run, args=(bound, listening))
    thread.start()
    try:
        assert is_up.wait(20)
        yield Running(found[0], server.stop, reports)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()
        bound.close()
