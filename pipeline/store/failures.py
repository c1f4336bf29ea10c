"""What a file system's exception means: missing, refused, there already, worth a retry, or final.

In: an exception of fsspec, s3fs, botocore, aiohttp or the operating system.
Out: a `Failure`.
Invariant: its text has no credentials.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from corpus.pipeline.humanize import error_text

_BUSY_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""409 is the answer to conditional writes that meet: one of them has to be repeated."""
_GONE = frozenset({404, 410})
"""Over HTTP fsspec raises FileNotFoundError for any status, so a status goes before the class."""
_BUSY_ERRNO = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.EREMOTEIO, errno.ETIMEDOUT}
)
_BUSY_CLASSES = frozenset(
    {
        "ClientConnectionError", "ClientPayloadError", "ConnectionError", "HTTPClientError", "IncompleteRead",
        "IncompleteReadError", "ResponseParserError", "ResponseStreamingError", "TimeoutError",
    }
)  # fmt: skip
"""Classes of aiohttp, botocore and http.client, which are installed with their file systems alone."""
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"})
_DEPTH = 8


class Kind(Enum):
    """What a failure means."""

    MISSING = auto()
    """There is no such object."""
    NO_BUCKET = auto()
    """There is no such bucket."""
    EXISTS = auto()
    """A write that must create an object found one."""
    REFUSED = auto()
    """Without credentials, or refused to them."""
    BUSY = auto()
    """Worth a retry: a server that is busy, a cut connection, a timeout."""
    FINAL = auto()
    """Anything else."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure and its words."""

    kind: Kind
    text: str


class ShortBodyError(ConnectionError):
    """A body ended before its time."""


class OtherBytesError(Exception):
    """A body has another SHA-256 than it should."""


def failure_of(error: Exception) -> Failure:
    """What an exception means, by what it was raised from where that says more."""
    chain = list(_chain(error))
    statuses = [status for each in chain if (status := _status(each)) is not None]
    codes = {_code(each) for each in chain}
    names = {kind.__name__ for each in chain for kind in type(each).__mro__}
    is_cut = not names.isdisjoint(_BUSY_CLASSES)
    status = statuses[0] if statuses and not is_cut else None  # aiohttp gives a cut body the status 400
    text = error_text(error) + (f" (status {status})" if status is not None else "")
    return Failure(Kind.BUSY if is_cut else _kind(chain, names, status, codes), text)


def _kind(chain: list[BaseException], names: set[str], status: int | None, codes: set[str]) -> Kind:
    numbers = {each.errno for each in chain if isinstance(each, OSError)}
    tests = (
        (Kind.NO_BUCKET, "NoSuchBucket" in codes),
        (Kind.EXISTS, "PreconditionFailed" in codes or status == 412 or "FileExistsError" in names),
        (Kind.BUSY, status in _BUSY_STATUS or (status is None and bool(numbers & _BUSY_ERRNO))),
        (Kind.REFUSED, bool(names & _NO_CREDENTIALS) or "PermissionError" in names or status in {401, 403}),
        (Kind.MISSING, status in _GONE or (status is None and "FileNotFoundError" in names)),
    )
    return next((kind for kind, holds in tests if holds), Kind.FINAL)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised from."""
    found: BaseException | None = error
    for _ in range(_DEPTH):
        if found is None:
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception holds: as botocore, aiohttp, Google's and Azure's clients have it."""
    given = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    names = iter(("status", "status_code", "code"))
    while not isinstance(given, int) and (name := next(names, None)):
        given = getattr(error, name, None)
    return given if isinstance(given, int) and 400 <= given < 600 else None


def _code(error: BaseException) -> str:
    """The code of an S3 error, such as NoSuchBucket."""
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) else {}
