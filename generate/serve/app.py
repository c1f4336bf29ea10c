"""The web application: routes, limits, and the way of a request from its body to its answer.

Invariants: every error has the JSON of OpenAI's protocol; a request takes no more than `max_seconds`, its body and a
client that reads slowly included; a client that leaves frees its rows at the next token.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from corpus.generate.chat import ChatForm
from corpus.generate.config import SampleConfig
from corpus.generate.engine.model import Model
from corpus.generate.serve import protocol
from corpus.generate.serve.access import Access
from corpus.generate.serve.answers import Answer
from corpus.generate.serve.config import ServeConfig
from corpus.generate.serve.protocol import RequestError
from corpus.generate.serve.responses import EventStream, error_response, event, json_response, not_found, unless_left
from corpus.generate.serve.scheduler import Failure, FullError, Job, Part, Scheduler, StoppingError

Report = Callable[[str], None]
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """The model and what it can be asked."""

    model: Model
    name: str
    """Its id in the protocol."""
    chat: ChatForm | None
    """None where it does not answer questions."""
    no_chat: str = ""
    """Then why not, and what to do."""


class Ask:
    """A job with the parts that arrive."""

    def __init__(self, *, prompt_tokens: int, deadline: float, **settings: Any) -> None:
        self.prompt_tokens = prompt_tokens
        self.deadline = deadline
        self._parts: asyncio.Queue[Part | Failure] = asyncio.Queue()
        self.job = Job(deadline=deadline, receive=self._parts.put_nowait, **settings)

    async def next(self) -> Part:
        """The next part.

        Raises:
            RequestError: the job failed.

        """
        part = await self._parts.get()
        if isinstance(part, Part):
            return part
        if part.kind == "error":
            raise RequestError(part.message, status=500, kind="server_error", code="generation_failed")
        raise RequestError(part.message, status=503, kind="server_error", code=f"ended_by_{part.kind}", retry_after_s=5)


class App:
    """The endpoints; `asgi` is the application."""

    def __init__(
        self, served: Served, config: ServeConfig, access: Access, scheduler: Scheduler, *, report: Report,
        connections: Callable[[], int],
    ) -> None:  # fmt: skip
        """`report` takes a line for each request where `config.access_log`, and unexpected errors.

        `connections` counts those that are open.
        """
        self._served = served
        self._config = config
        self._access = access
        self._scheduler = scheduler
        self._report = report
        self._connections = connections
        self._encoding = ThreadPoolExecutor(1, "encoder")  # one thread: the tokenizer is not made for several
        vocabulary = range(served.model.network.config.vocab_size)
        known = [len(served.model.vocabulary.bytes_of(token)) for token in vocabulary]
        self._most_bytes = served.model.context * max(known)
        self._ids = len(served.model.tokenizer)
        self._created = int(time.time())
        routes = [Route(path, self._guarded(self._page, key=False), methods=["GET"]) for path in _PAGE]
        routes += [
            Route("/health", self._guarded(self._health, key=False), methods=["GET"]),
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/v1/models/{model:path}", self._guarded(self._one_model), methods=["GET"]),
            Route("/v1/completions", self._guarded(self._completions), methods=["POST"]),
            Route("/v1/chat/completions", self._guarded(self._chat), methods=["POST"]),
        ]
        self._inner = Starlette(routes=routes, exception_handlers={HTTPException: not_found})
        self._inner.router.redirect_slashes = False

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and report it where that is wanted."""
        if scope["type"] != "http" or not self._config.access_log:
            await self._inner(scope, receive, send)
            return
        started, status = time.monotonic(), 499  # 499: the client left before the answer began

        async def watched(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._inner(scope, receive, watched)
        finally:
            told = scope.get("state", {}).get("told", "")
            seconds = time.monotonic() - started
            self._report(f"{scope['method']} {scope['path'][:200]!r} {status}, {seconds:.2f} s{told}")

    def close(self) -> None:
        """Give up the thread of the tokenizer."""
        self._encoding.shutdown(wait=False, cancel_futures=True)

    def _guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]], *, key: bool = True
    ) -> Callable[[Request], Awaitable[Response]]:  # fmt: skip
        """An endpoint behind the checks of access; what it raises becomes an error of the protocol."""

        @functools.wraps(endpoint)
        async def guarded(request: Request) -> Response:
            try:
                self._check_room()
                self._access.check_page(request.headers)
                if key:
                    self._access.check_key(request.headers)
                return await endpoint(request)
            except RequestError as error:
                return error_response(error)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:  # noqa: BLE001  # the client gets an answer, the console the cause
                self._report(f"internal error: {type(error).__name__}: {error}")
                return error_response(
                    RequestError("internal error", status=500, kind="server_error", code="internal_error")
                )

        return guarded

    # --- endpoints ---

    async def _page(self, request: Request) -> Response:
        name, kind = _PAGE[request.scope["path"]]
        content = files(__package__).joinpath("page", name).read_bytes()
        return Response(content, media_type=kind, headers=_SAFE)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002  # the signature is Starlette's
        state = {
            "status": "ok" if self._scheduler.is_alive else "stopping",
            "running": self._scheduler.running,
            "waiting": self._scheduler.waiting,
        }
        return json_response(state, 200 if self._scheduler.is_alive else 503)

    async def _models(self, request: Request) -> Response:  # noqa: ARG002  # the signature is Starlette's
        return json_response({"object": "list", "data": [self._card()]})

    async def _one_model(self, request: Request) -> Response:
        self._check_model(request.path_params["model"])
        return json_response(self._card())

    async def _completions(self, request: Request) -> Response:
        asked = protocol.completion(protocol.parse(await self._body(request)))
        self._check_model(asked.settings.model)
        self._check_choices(len(asked.prompts) * asked.settings.n)
        model = self._served.model
        prompts = {}
        for number, prompt in enumerate(asked.prompts):
            if isinstance(prompt, str):
                prompts[number] = [
                    *model.beginning,
                    *await self._encode(functools.partial(model.encode, prompt), prompt),
                ]
            elif max(prompt, default=0) >= self._ids:
                raise RequestError(f"prompt: the model has the tokens 0 to {self._ids - 1}", param="prompt")
            else:
                prompts[number] = list(prompt)
        keys = [(number, sample) for number in prompts for sample in range(asked.settings.n)]
        return await self._answered(request, asked.settings, prompts, keys, "text")

    async def _chat(self, request: Request) -> Response:
        asked = protocol.conversation(protocol.parse(await self._body(request)))
        self._check_model(asked.settings.model)
        form = self._served.chat
        if form is None:
            raise RequestError(self._served.no_chat, code="no_chat_form")
        self._check_choices(asked.settings.n)
        text = "".join((*(side for turn in asked.turns for side in turn), asked.question))
        ids = await self._encode(functools.partial(form.prompt, asked.turns, asked.question), text)
        number = len(asked.turns)  # as `corpus sample --chat` counts, so that a seed gives the same answers
        keys = [(number, sample) for sample in range(asked.settings.n)]
        return await self._answered(request, asked.settings, {number: ids}, keys, "chat")

    async def _answered(
        self, request: Request, settings: protocol.Settings, prompts: Mapping[int, list[int]],
        keys: list[tuple[int, int]], form: Literal["text", "chat"],
    ) -> Response:  # fmt: skip
        """Submit a job and answer with what it writes."""
        ask = Ask(
            prompt_tokens=sum(map(len, prompts.values())), deadline=self._deadline(request), prompts=prompts, keys=keys,
            config=settings.sampling(self._room(settings.max_tokens, prompts)), likeliest=settings.likeliest,
        )  # fmt: skip
        answer = Answer(
            self._served.model, self._served.name, form=form, choices=len(keys), prompt_tokens=ask.prompt_tokens,
            seed=settings.seed, include_usage=settings.include_usage,
        )  # fmt: skip
        self._submit(ask.job)
        done = functools.partial(self._done, request, ask, answer)
        is_open = False
        try:
            first = await unless_left(request, ask.next())
            if settings.stream:
                is_open = True
                return EventStream(self._events(ask, answer, first), done)
            answer.add(first)
            await unless_left(request, _collect(ask, answer))
            return json_response(answer.whole())
        finally:
            if not is_open:
                done()

    async def _events(self, ask: Ask, answer: Answer, first: Part) -> AsyncIterator[bytes]:
        """The answer as server-sent events."""
        for chunk in answer.opening():
            yield event(chunk)
        part = first
        try:
            while True:
                for chunk in answer.chunks(part):
                    yield event(chunk)
                if answer.is_finished:
                    break
                part = await ask.next()
            for chunk in answer.closing():
                yield event(chunk)
        except RequestError as error:
            yield event({"error": error.error})
        yield b"data: [DONE]\n\n"

    # --- checks ---

    def _check_room(self) -> None:
        if self._connections() > self._config.max_connections:
            raise RequestError(
                "too many connections are open",
                status=503, kind="server_error", code="too_many_connections", retry_after_s=5,
            )  # fmt: skip

    async def _body(self, request: Request) -> bytes:
        """The body, no larger and no later than allowed."""
        most = self._config.max_body_bytes
        request.state.arrived = time.monotonic()
        too_large = RequestError(f"the body is larger than {most:,} bytes", status=413, code="body_too_large")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.max_idle_seconds):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most:
                        raise too_large
        except TimeoutError as error:
            raise RequestError("the body did not arrive in time", status=408, code="body_too_slow") from error
        return bytes(body)

    def _check_model(self, name: str | None) -> None:
        if name is not None and name != self._served.name:
            raise RequestError(
                f"there is no model {name[:80]!r} here, only {self._served.name!r}",
                param="model", status=404, code="model_not_found",
            )  # fmt: skip

    def _check_choices(self, count: int) -> None:
        if count > self._config.batch_size:
            raise RequestError(
                f"the request asks for {count} texts; this server writes at most {self._config.batch_size} at once",
                param="n",
            )

    async def _encode(self, encode: Callable[[], list[int]], text: str) -> list[int]:
        """Tokens of a text, made in the tokenizer's thread; a text that cannot fit is refused before."""
        if len(text.encode()) > self._most_bytes:
            raise self._too_long(f"the prompt has {len(text):,} characters, more than that can hold")
        return await asyncio.get_running_loop().run_in_executor(self._encoding, encode)

    def _room(self, wanted: int | None, prompts: Mapping[int, list[int]]) -> int:
        """Most tokens of each answer; refuses what would not fit the context."""
        longest = max(1, *map(len, prompts.values()))
        room = self._served.model.context - longest
        if room < (wanted or 1):
            what = "1" if wanted is None else f"{wanted:,}"
            raise self._too_long(f"the prompt has {longest:,} and the answer may have {what}")
        return min(SampleConfig().max_new_tokens, room) if wanted is None else wanted

    def _too_long(self, why: str) -> RequestError:
        return RequestError(
            f"the model's context is {self._served.model.context:,} tokens; {why}",
            param="max_tokens", code="context_length_exceeded",
        )  # fmt: skip

    def _submit(self, job: Job) -> None:
        try:
            self._scheduler.submit(job)
        except FullError as error:
            raise RequestError(
                f"{self._config.queue} requests are waiting already; try again later",
                status=429, kind="rate_limit_error", code="queue_full", retry_after_s=error.wait_s,
            ) from error  # fmt: skip
        except StoppingError as error:
            raise RequestError(
                "the server is stopping", status=503, kind="server_error", code="stopping", retry_after_s=5
            ) from error

    def _deadline(self, request: Request) -> float:
        arrived: float = request.state.arrived
        return arrived + self._config.max_seconds

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._served.name,
            "object": "model",
            "created": self._created,
            "owned_by": "corpus-zh",
            "context_length": self._served.model.context,
            "chat": self._served.chat is not None,
        }

    def _done(self, request: Request, ask: Ask, answer: Answer) -> None:
        """Free the rows of an answer that is not finished, and note for the access log what was written."""
        self._scheduler.cancel(ask.job)
        ends = ", ".join(sorted({choice.end or "the client" for choice in answer.choices}))
        request.state.told = f", {answer.prompt_tokens} + {answer.tokens} tokens, ended by {ends}"


async def _collect(ask: Ask, answer: Answer) -> None:
    while not answer.is_finished:
        answer.add(await ask.next())
