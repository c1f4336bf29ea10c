"""Responses: JSON, errors, streams of events, and what happens when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from corpus.generate.serve.protocol import RequestError

T = TypeVar("T")


class EventStream(StreamingResponse):
    """Server-sent events; however they end, `done` is called then."""

    def __init__(self, events: AsyncIterator[bytes], done: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client leaves; one that does not read them is disconnected."""
        try:
            with contextlib.suppress(ClientDisconnect):
                await super().__call__(scope, receive, send)
        finally:
            self._done()


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: it left.

    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientDisconnect
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event(value: Mapping[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def json_response(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(orjson.dumps(value), status, headers, "application/json")


def error_response(error: RequestError) -> Response:
    """The response to a refused request."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 408:
        headers["Connection"] = "close"
    return json_response({"error": error.error}, error.status, headers)


async def not_found(request: Request, error: Exception) -> Response:
    """An unknown path, or another method than it takes."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    path = request.scope["path"]
    known = "POST" if path.endswith("completions") else "GET"
    what = f"there is no {path[:80]}" if status == 404 else f"{path} takes {known}"
    response = error_response(RequestError(what, status=status, code="not_found" if status == 404 else "wrong_method"))
    response.headers.update(getattr(error, "headers", None) or {})
    return response
