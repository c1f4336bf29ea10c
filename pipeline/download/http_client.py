"""Files over HTTP: range requests, redirects, credentials, and the meaning of a response.

In: a URL, and the size and version of its partial file.
Out: a `Stream`, TransientError (retry) or DownloadError (try another mirror).
Invariants: a range is used only when the server proves that it is of the same version (If-Range, ETag, Last-Modified,
Content-Range). Only http and https are used, also after a redirect. HF_TOKEN is sent to the hub's host over https only.
Messages contain no user name, password or signature of a URL.
Cost: one request for each file, a second one when a range is not usable.
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

from corpus.pipeline.download.remote_file import CHANGED, FileVersion, Opener, Stream
from corpus.pipeline.download.retry import RetryPolicy, TransientError, with_minimum_rate
from corpus.pipeline.errors import DownloadError
from corpus.pipeline.humanize import plain_text, shown_url

_BUSY = frozenset({408, 425, 429})
_GET_ONLY = ("403", "405", "501")
"""Answers to HEAD from signed URLs and from servers that support GET only."""
_SMALL_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpClient:
    """An httpx client and its retry policy."""

    client: httpx.Client
    retry: RetryPolicy

    def opener(self, url: str) -> Opener:
        """An opener of a URL."""

        @contextmanager
        def open_at(offset: int, known: FileVersion | None) -> Iterator[Stream]:
            why = ""
            if offset and known is not None and known.condition:
                with self.request("GET", url, {"Range": f"bytes={offset}-", "If-Range": known.condition}) as response:
                    stream = _stream(response, offset, known)
                    if stream is not None:
                        yield stream
                        return
                why = "the range that the server sent is not of the same version"
            elif offset:
                why = "the server gave neither ETag nor Last-Modified, so the partial file cannot be matched"
            with self.request("GET", url, {}) as response:
                stream = _stream(response, 0, None)
                if stream is None:
                    raise DownloadError(f"{shown_url(url)}: unexpected status {_status_text(response)}")
                yield replace(stream, restart_reason=why)

        return open_at

    def probe(self, url: str) -> FileVersion | str:
        """The version of a file that exists, or the reason why it cannot be downloaded.

        Raises:
            TransientError: the request should be retried.

        """
        for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
            try:
                with self.request(method, url, headers) as response:
                    if response.headers.get("Content-Type", "").startswith("text/html"):
                        return "an HTML page"
                    return _version(response)
            except DownloadError as error:
                reason = error.message.rpartition(": ")[2]
                if not reason.startswith(_GET_ONLY):
                    return reason
        return reason

    def small_text(self, url: str) -> str:
        """The text of a small file; empty when it does not exist.

        Raises:
            TransientError: the request should be retried.

        """
        data = b""
        try:
            with self.request("GET", url, {}) as response:
                for chunk in with_minimum_rate(_chunks(response), self.retry):
                    data += chunk
                    if len(data) > _SMALL_BYTES:
                        return ""
        except DownloadError:
            return ""
        return data.decode("utf-8", "replace")

    @contextmanager
    def request(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Send a request and follow redirects; the body of the response is not read yet.

        Raises:
            TransientError: no response, or one that says to retry.
            DownloadError: the server refuses, or the redirects are not allowed.

        """
        shown = shown_url(url)
        with _network_errors(shown):
            request = self._build(method, url, headers)
        for _ in range(self.retry.max_redirects + 1):
            with _network_errors(shown):
                response = self.client.send(request, stream=True)
            try:
                if response.next_request is None:
                    _check_status(response, shown)
                    yield response
                    return
                request = response.next_request
                shown = f"{shown_url(url)} (redirected to {shown_url(str(request.url))})"
                if request.url.scheme not in {"http", "https"}:
                    raise DownloadError(f"{shown}: only http and https are followed")
            finally:
                response.close()
        raise DownloadError(f"{shown_url(url)}: more than {self.retry.max_redirects} redirects, the last is {shown}")

    def _build(self, method: str, url: str, headers: Mapping[str, str]) -> httpx.Request:
        """A request with credentials in its header, from where httpx drops them on a redirect to another host."""
        target = httpx.URL(url)
        if target.scheme not in {"http", "https"} or not target.host:
            raise DownloadError(f"{shown_url(url)}: is not an http or https URL")
        hub = httpx.URL(hub_url())
        token = os.environ.get("HF_TOKEN", "").strip()
        credentials = {}
        if target.userinfo:
            pair = f"{target.username}:{target.password}".encode()
            credentials = {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        elif token and target.scheme == "https" and (target.host, target.port) == (hub.host, hub.port):
            credentials = {"Authorization": f"Bearer {token}"}
        return self.client.build_request(method, target.copy_with(userinfo=b""), headers={**headers, **credentials})


@contextmanager
def open_client(retry: RetryPolicy) -> Iterator[HttpClient]:
    """A client for one stage. Proxies and certificates come from the environment, as httpx reads it."""
    timeout = httpx.Timeout(retry.read_timeout_s, connect=retry.connect_timeout_s)
    headers = {"User-Agent": "corpus-zh", "Accept": "*/*", "Accept-Encoding": "identity"}
    with httpx.Client(timeout=timeout, headers=headers, follow_redirects=False) as client:
        yield HttpClient(client=client, retry=retry)


def hub_url() -> str:
    """Base URL of the Hugging Face hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _check_status(response: httpx.Response, shown: str) -> None:
    """Raise TransientError or DownloadError unless the status is that of a file."""
    status = response.status_code
    if status in _BUSY or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED):
        raise TransientError(_status_text(response), wait_s=_retry_after(response.headers.get("Retry-After", "")))
    if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
        raise DownloadError(f"{shown}: {_status_text(response)}")


def _stream(response: httpx.Response, offset: int, known: FileVersion | None) -> Stream | None:
    """The response as a stream from `offset` or from 0; None when its range is another or of another version."""
    version = _version(response)
    start, why = 0, ""
    content_range = re.fullmatch(
        r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    if response.status_code == HTTPStatus.OK:
        if known is not None:
            why = "the server does not support Range requests" if known.is_same(version) else CHANGED
    elif (
        response.status_code == HTTPStatus.PARTIAL_CONTENT
        and (content_range and int(content_range[1]) == offset)
        and (known is not None and known.is_same(version))
    ):
        start = offset
    else:
        return None
    return Stream(
        start=start,
        version=version,
        chunks=_chunks(response),
        restart_reason=why,
        is_html=response.headers.get("Content-Type", "").lower().startswith("text/html"),
        encoding=response.headers.get("Content-Encoding", "").replace("identity", ""),
    )


def _version(response: httpx.Response) -> FileVersion:
    """The version by the response's headers; malformed values are left out, because If-Range sends them back."""
    etag = response.headers.get("ETag", "")
    modified = response.headers.get("Last-Modified", "")
    length = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get("Content-Length", "")
    return FileVersion(
        etag=etag if re.fullmatch(r'"[!#-~]{1,200}"', etag) else "",
        modified=modified if re.fullmatch(r"[A-Za-z0-9 ,:+-]{1,40}", modified) else "",
        total=int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
    )


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    """The body as received, neither decoded nor buffered, so that a slow server is noticed."""
    with _network_errors(""):
        yield from response.iter_raw()


@contextmanager
def _network_errors(shown: str) -> Iterator[None]:
    """Turn httpx's exceptions into TransientError or DownloadError."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise TransientError(f"cannot be reached ({plain_text(str(error))})", is_unreachable=True) from error
    except httpx.ReadTimeout as error:
        raise TransientError("timed out waiting for data") from error
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
    """Seconds to wait, from a number or a date; None when there is neither."""
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        due = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    due = due if due.tzinfo else due.replace(tzinfo=UTC)
    return max(0.0, (due - datetime.now(UTC)).total_seconds())
