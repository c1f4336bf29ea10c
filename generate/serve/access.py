"""Who may ask: keys, and requests that a foreign web page sends from a user's own browser.

In: the headers of a request. Out: nothing, or a `RequestError`.
Invariants: keys are compared in constant time, all of them; without keys only names of this machine are taken as Host,
so a foreign page cannot reach the server under a name of its own that points here (DNS rebinding); a request with a
foreign Origin is refused, because a browser sends it without asking.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from corpus.generate.serve.protocol import RequestError
from corpus.pipeline.errors import ServeError

_LEAST_KEY_CHARACTERS = 16
_OWN_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; blank lines and lines from `#` on are left out.

    Raises:
        ServeError: it cannot be read, holds no key, or one that is short or no plain text.

    """
    hint = "Write one key a line, such as `openssl rand -hex 32` prints."
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        raise ServeError(f"--api-key-file: {path}: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise ServeError(f"--api-key-file: {path} holds other characters than ASCII", hint=hint) from error
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ServeError(f"--api-key-file: {path} holds no key", hint=hint)
    for number, key in enumerate(keys, 1):
        if len(key) < _LEAST_KEY_CHARACTERS or not key.isprintable() or " " in key:
            raise ServeError(
                f"--api-key-file: key {number} of {path} has blanks or fewer than {_LEAST_KEY_CHARACTERS} characters",
                hint=hint,
            )
    return keys


class Access:
    """The rules of one server."""

    def __init__(self, keys: Sequence[str], *, host: str) -> None:
        """`host` is what --host says; without keys it is an address of this machine alone."""
        self._digests = [_digest(key) for key in keys]
        self._names = None if keys else _OWN_NAMES | {host.lower()}

    def check_page(self, headers: Mapping[str, str]) -> None:
        """Check what any request must fulfil.

        Raises:
            RequestError: it comes from a foreign page, or names a foreign host.

        """
        host = headers.get("host", "")
        if self._names is not None and not self._is_own(host):
            raise RequestError(
                f"this server does not answer for the host {host[:80]!r}", status=403, code="foreign_host"
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise RequestError("requests of other web pages are refused", status=403, code="foreign_origin")

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Check what a request to the models must fulfil, too.

        Raises:
            RequestError: it has no valid key.

        """
        if not self._digests:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip())
        # All are compared, so that the time does not tell which key is nearly right.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise RequestError(
                "a valid key is missing: send the header Authorization: Bearer KEY",
                status=401, kind="authentication_error", code="invalid_api_key",
            )  # fmt: skip

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in (self._names or ())


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _digest(key: str) -> bytes:
    """A digest of fixed length, so that the comparison does not tell the length of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
