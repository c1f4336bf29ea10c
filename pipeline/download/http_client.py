"""Files over HTTP: asking for the rest of one, and telling what the answer means.

In: a URL and what is there of it. Out: a `Stream`, TransientError (ask again) or DownloadError (ask elsewhere).
Invariants: a range is used only when the server proves that it is of the same version (If-Range, ETag, Last-Modified,
Content-Range); only http and https are spoken, also after a redirect; HF_TOKEN goes to the hub's own host over https
and nowhere else; user names, passwords and signatures in URLs are in no message.
Cost: one request for a file, a second one when a range does not fit.
"""

from __future__ import annotations

import base64
import email.utils
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus

import httpx

from corpus.pipeline.download.remote_file import Opener, Stamp, Stream
from corpus.pipeline.download.retry import Patience, TransientError, paced
from corpus.pipeline.errors import DownloadError
from corpus.pipeline.humanize import plain_text

_HUB = "https://huggingface.co"
_PUBLIC_KEYS = frozenset({"id", "export", "confirm", "download"})
_BUSY = frozenset({408, 425, 429})
_GET_ALONE = ("403", "405", "501")
"""What HEAD gives at signed URLs and at small servers that know GET alone."""
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """A response, and what messages call where it came from."""

    response: httpx.Response
    shown: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Web:
    """A client and how patient it is."""

    client: httpx.Client
    patience: Patience

    def opener(self, url: str) -> Opener:
        """How `fetch` opens a URL."""

        @contextmanager
        def open_at(offset: int, known: Stamp | None) -> Iterator[Stream]:
            why = ""
            if offset and known is not None and known.condition:
                with self.respond("GET", url, {"Range": f"bytes={offset}-", "If-Range": known.condition}) as answer:
                    stream = _stream(answer, offset, known)
                    if stream is not None:
                        yield stream
                        return
                why = "what the server would go on with is not of the same version"
            elif offset:
                why = "the server gave neither ETag nor Last-Modified, so nothing proves that the rest would fit"
            with self.respond("GET", url, {}) as answer:
                stream = _stream(answer, 0, None)
                if stream is None:
                    raise DownloadError(f"{answer.shown}: {_status_text(answer.response)} came unasked")
                yield replace(stream, why=why)

        return open_at

    def probe(self, url: str) -> Stamp | str:
        """The stamp of a file that is there, or what the server says instead.

        Raises:
            TransientError: it should be asked again.

        """
        for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
            try:
                with self.respond(method, url, headers) as answer:
                    response = answer.response
                    if response.headers.get("Content-Type", "").startswith("text/html"):
                        return "an HTML page"
                    return _stamp(response)
            except DownloadError as error:
                said = error.message.rpartition(": ")[2]
                if not said.startswith(_GET_ALONE):
                    return said
        return said

    def small_text(self, url: str) -> str:
        """A small text file; empty when there is none.

        Raises:
            TransientError: it should be asked again.

        """
        data = b""
        try:
            with self.respond("GET", url, {}) as answer:
                for chunk in paced(_chunks(answer.response), self.patience):
                    data += chunk
                    if len(data) > _SMALL_BYTES:
                        return ""
        except DownloadError:
            return ""
        return data.decode("utf-8", "replace")

    @contextmanager
    def respond(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[_Answer]:
        """The answer to a request, redirects followed, its body unread.

        Raises:
            TransientError: none came, or it says "later".
            DownloadError: it says "no".

        """
        shown = shown_url(url)
        with _network(shown):
            request = self._request(method, url, headers)
        for _ in range(self.patience.redirects + 1):
            with _network(shown):
                response = self.client.send(request, stream=True)
            try:
                if response.next_request is None:
                    _judge(response, shown)
                    yield _Answer(response=response, shown=shown)
                    return
                request = response.next_request
                shown = f"{shown_url(url)} (redirected to {shown_url(str(request.url))})"
                if request.url.scheme not in {"http", "https"}:
                    raise DownloadError(f"{shown}: only http and https are followed")
            finally:
                response.close()
        raise DownloadError(
            f"{shown_url(url)}: more than {self.patience.redirects} redirects, the last of them {shown}"
        )

    def _request(self, method: str, url: str, headers: Mapping[str, str]) -> httpx.Request:
        """A request with its credentials in the header, where a redirect to another host loses them."""
        target = httpx.URL(url)
        if target.scheme not in {"http", "https"} or not target.host:
            raise DownloadError(f"{shown_url(url)}: is not an http or https URL")
        home = httpx.URL(hub())
        token = os.environ.get("HF_TOKEN", "").strip()
        credentials = {}
        if target.userinfo:
            pair = f"{target.username}:{target.password}".encode()
            credentials = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        elif token and target.scheme == "https" and (target.host, target.port) == (home.host, home.port):
            credentials = {"Authorization": f"Bearer {token}"}
        return self.client.build_request(method, target.copy_with(userinfo=b""), headers={**headers, **credentials})


@contextmanager
def connected(patience: Patience) -> Iterator[Web]:
    """A client for one stage. Proxies and certificates are taken from the environment as usual."""
    timeout = httpx.Timeout(patience.silence_s, connect=patience.connect_s)
    headers = {"User-Agent": "corpus-zh", "Accept": "*/*", "Accept-Encoding": "identity"}
    with httpx.Client(timeout=timeout, headers=headers, follow_redirects=False) as client:
        yield Web(client=client, patience=patience)


def hub() -> str:
    """Where the Hugging Face hub is reached."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or _HUB


def shown_url(url: str) -> str:
    """A URL as messages and `origin.json` show it.

    >>> shown_url("https://me:secret@example.org/a.zip?id=7&signature=f00")
    'https://example.org/a.zip?id=7&signature=…'
    """
    start, _, fragment_free = url.partition("#")[0].partition("://")
    place, slash, rest = fragment_free.partition("/")
    path, mark, query = rest.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    masked = "&".join(f"{key}={value if key in _PUBLIC_KEYS else '…'}" if same else "…" for key, same, value in pairs)
    return f"{start}://{place.rpartition('@')[2]}{slash}{path}{mark and mark + masked}"


def _judge(response: httpx.Response, shown: str) -> None:
    """Pass what can be a file, raise what cannot."""
    status = response.status_code
    if status in _BUSY or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED):
        raise TransientError(_status_text(response), wait_s=_retry_after(response.headers.get("Retry-After", "")))
    if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
        raise DownloadError(f"{shown}: {_status_text(response)}")


def _stream(answer: _Answer, offset: int, known: Stamp | None) -> Stream | None:
    """The answer as a stream from `offset` or from 0; None when it is a part that fits neither."""
    response = answer.response
    stamp = _stamp(response)
    start, why = 0, ""
    if response.status_code == HTTPStatus.OK:
        if known is not None:
            is_same = known.is_same(stamp)
            why = "the server does not go on in the middle" if is_same else "it has changed since its first part came"
    elif known is not None and _range_start(response) == offset and known.is_same(stamp):
        start = offset
    else:
        return None
    return Stream(
        start=start,
        stamp=stamp,
        chunks=_chunks(response),
        why=why,
        is_page=response.headers.get("Content-Type", "").lower().startswith("text/html"),
        encoding=response.headers.get("Content-Encoding", "").replace("identity", ""),
    )


def _stamp(response: httpx.Response) -> Stamp:
    """What names the version, as far as it can be trusted and sent back."""
    etag = response.headers.get("ETag", "")
    modified = response.headers.get("Last-Modified", "")
    length = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
    return Stamp(
        etag=etag if re.fullmatch(r'"[!#-~]{1,200}"', etag) else "",
        modified=modified if re.fullmatch(r"[A-Za-z0-9 ,:+-]{1,40}", modified) else "",
        total=int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
    )


def _range_start(response: httpx.Response) -> int | None:
    match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match and response.status_code == HTTPStatus.PARTIAL_CONTENT else None


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    """The body as it comes, neither unpacked nor gathered: a drip must be seen as one."""
    with _network(""):
        yield from response.iter_raw()


@contextmanager
def _network(shown: str) -> Iterator[None]:
    """Turn what httpx raises into what it means for us."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise TransientError(f"cannot be reached ({plain_text(str(error))})", is_unreachable=True) from error
    except httpx.ReadTimeout as error:
        raise TransientError("nothing more came for too long") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise DownloadError(f"{shown}: {plain_text(str(error))}") from error
    except httpx.TransportError as error:
        raise TransientError(f"the connection was cut ({plain_text(str(error)) or type(error).__name__})") from error


def _status_text(response: httpx.Response) -> str:
    try:
        return f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return f"status {response.status_code}"


def _retry_after(value: str) -> float | None:
    """Seconds to wait, from seconds or from a date; None when the server does not say."""
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        due = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    due = due if due.tzinfo else due.replace(tzinfo=UTC)
    return max(0.0, (due - datetime.now(UTC)).total_seconds())
