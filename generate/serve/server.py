"""Bind, load, serve, stop.

In: a model's folder and a `ServeConfig`. Out: answers on a socket until the process is told to end.
Invariants: the socket is bound before the model is loaded, so a busy port is named at once; on SIGINT and SIGTERM open
answers get their end at the next token, new ones are refused, and `KeyboardInterrupt` is raised once all are sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from corpus.generate.chat import ChatForm, is_untuned
from corpus.generate.engine.model import Model, load
from corpus.generate.serve.access import Access, is_loopback, read_keys
from corpus.generate.serve.app import App, Report, Served
from corpus.generate.serve.config import ServeConfig
from corpus.generate.serve.scheduler import Scheduler
from corpus.pipeline.errors import ModelError, ServeError

_SHUTDOWN_SECONDS = 10
_HEADER_BYTES = 1 << 15
_REFUSED_CONNECTIONS = 64
"""Connections beyond the most that get an answer, which says so; others are closed."""


def run(
    config: ServeConfig, folder: Path, name: str, *, device: str = "auto", precision: str = "auto",
    listening: Callable[[str], None], report: Report,
) -> None:  # fmt: skip
    """Serve a model until SIGINT or SIGTERM.

    `listening` is called with the address once requests are taken, `report` with remarks.

    Raises:
        ServeError: the address is taken or not allowed, or the keys cannot be read.
        ModelError, TokenizerError, DeviceError: as `corpus.generate.engine.model.load`.
        KeyboardInterrupt: the server was told to end.

    """
    keys = read_keys(config.api_key_file) if config.api_key_file is not None else ()
    with bind(config, has_keys=bool(keys)) as bound:
        report(f"loading {folder} ...")
        served = of_model(load(folder, device=device, precision=precision), folder, name)
        if served.chat is None:
            report(served.no_chat)
        Server(config, served, keys, report=report).run(bound, listening)


def bind(config: ServeConfig, *, has_keys: bool) -> socket.socket:
    """The socket of an address, which must be of this machine alone unless there are keys.

    Raises:
        ServeError: the address is unknown, taken or not allowed.

    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host: no address is known for {config.host}", hint="Try --host 127.0.0.1.") from error
    if not (has_keys or is_loopback(str(address[0]))):
        raise ServeError(
            f"--host {config.host} is reached by other machines, and anybody there could use the model",
            hint="Give --api-key-file FILE, too, or leave --host out.",
        )
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ServeError(
            f"{config.host}:{config.port}: {error.strerror}", hint="Give another --port; 0 takes a free one."
        ) from error
    return bound


def of_model(model: Model, folder: Path, name: str) -> Served:
    """A model with what it can be asked."""
    try:
        form = ChatForm(model)
    except ModelError as error:
        return Served(model=model, name=name, chat=None, no_chat=f"{error.message}; ask /v1/completions")
    if is_untuned(folder):
        why = (
            f"{name} was trained on text alone: it continues texts (/v1/completions), it does not answer; "
            f"`corpus train --objective sft --init {name}` tunes it"
        )
        return Served(model=model, name=name, chat=None, no_chat=why)
    return Served(model=model, name=name, chat=form)


class _Connection(H11Protocol):
    """uvicorn's connection, closed where no request comes, and where the client does not read its answer."""

    def __init__(self, limits: ServeConfig, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._limits = limits
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Wait for a request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that `pause_writing` is called for any unread byte
        self._watch("headers")
        if len(self.connections) > self._limits.max_connections + _REFUSED_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Wait no longer once the headers of a request are complete."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._watch("headers")
        else:
            self._unwatch("headers")

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch("reading")

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._unwatch("reading")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        for name in list(self._timers):
            self._unwatch(name)
        super().connection_lost(exc)

    def _watch(self, name: str) -> None:
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(self._limits.max_idle_seconds, self.transport.abort)

    def _unwatch(self, name: str) -> None:
        if timer := self._timers.pop(name, None):
            timer.cancel()


class Server:
    """A served model on a socket."""

    def __init__(self, config: ServeConfig, served: Served, keys: Sequence[str], *, report: Report) -> None:
        """Prepare it; `run` listens."""
        self._loop = asyncio.new_event_loop()
        self._scheduler = Scheduler(
            served.model, rows=config.batch_size, queue=config.queue, call=self._call, report=report
        )
        self._app = App(
            served, config, Access(keys, host=config.host), self._scheduler, report=report,
            connections=lambda: len(self._uvicorn.server_state.connections),
        )  # fmt: skip
        settings: dict[str, Any] = {
            "http": functools.partial(_Connection, config), "interface": "asgi3", "ws": "none", "lifespan": "off",
            "log_config": None, "log_level": "critical", "access_log": False, "server_header": False,
            "proxy_headers": False, "timeout_graceful_shutdown": _SHUTDOWN_SECONDS,
            "h11_max_incomplete_event_size": _HEADER_BYTES,
        }  # fmt: skip
        self._uvicorn = _Uvicorn(uvicorn.Config(self._app.asgi, **settings), self.stop)

    def run(self, bound: socket.socket, listening: Callable[[str], None]) -> None:
        """Serve until `stop`, or in the main thread until a signal; `listening` is called with the address.

        Raises:
            KeyboardInterrupt: a signal ended it.

        """
        self._scheduler.start()
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve(bound, listening))
        finally:
            self._scheduler.stop()
            self._app.close()
            self._scheduler.join(_SHUTDOWN_SECONDS)

    def stop(self) -> None:
        """End open answers at their next token and then the server; from any thread."""
        self._scheduler.stop()
        self._uvicorn.should_exit = True

    async def _serve(self, bound: socket.socket, listening: Callable[[str], None]) -> None:
        bound.listen()
        listening(_url(bound))
        await self._uvicorn.serve(sockets=[bound])

    def _call(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
            self._loop.call_soon_threadsafe(work)


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, which ends open answers before it waits for them."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; a second Ctrl-C waits for nothing."""
        super().handle_exit(sig, frame)
        self._stop()


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
