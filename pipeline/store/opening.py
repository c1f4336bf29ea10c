"""From a URL or a path to a store.

In: `s3://bucket/prefix`, `file:///folder`, a path, `memory://`, or any URL that fsspec opens.
Out: a `Store`.
Invariants: credentials come from the file system's own places (for S3 the variables and files of AWS), never from the
URL; a client's own retries are off, so that the limit of `Retry` is the limit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from corpus.pipeline.errors import StoreError
from corpus.pipeline.humanize import error_text, shown_url
from corpus.pipeline.store.local import LocalStore, MemoryStore
from corpus.pipeline.store.objects import Store
from corpus.pipeline.store.retry import Retry

_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "sftp": "paramiko",
}  # fmt: skip


def is_remote(place: str) -> bool:
    """Whether a place is a URL, other than file:// and local://.

    >>> is_remote("s3://bucket/prefix"), is_remote("workspace"), is_remote("file:///workspace")
    (True, False, False)
    """
    return "://" in place and not re.match(r"(?i)(file|local)://", place)


def open_store(place: str, *, retry: Retry | None = None) -> Store:
    """The store at a URL or a path; nothing is asked of it yet.

    Raises:
        StoreError: there is no such file system, its package is not installed, or the URL has a password.

    """
    retry = retry or Retry()
    shown = shown_url(place) if "://" in place else place
    if "://" in place and urlsplit(place).password is not None:
        raise StoreError(
            f"{shown}: the URL has a password", hint="Leave it out: credentials come from the environment or a file."
        )
    if not is_remote(place):
        root = Path(re.sub(r"(?i)^(file|local)://(localhost(?=/))?", "", place)).expanduser().absolute()
        return LocalStore(LocalFileSystem(skip_instance_cache=True), root.as_posix(), str(root), retry)
    try:
        files, root = fsspec.core.url_to_fs(place, skip_instance_cache=True)
    except ImportError as error:
        name = _PACKAGES.get(urlsplit(place).scheme.lower())
        hint = f"Install it: pip install {name}" if name else ""
        raise StoreError(f"{shown} cannot be opened: {error_text(error)}", hint=hint) from error
    except Exception as error:  # fsspec's back-ends raise what their libraries raise
        raise StoreError(f"{shown} cannot be opened: {error_text(error)}", hint="Check the URL.") from error
    _set_up(files, retry)
    kind = MemoryStore if isinstance(files, MemoryFileSystem) else Store
    return kind(files, str(root), shown, retry)


def _set_up(files: Any, retry: Retry) -> None:
    """No cache of listings, which grow stale, no retries but ours, and a limit of the time without a byte."""
    if hasattr(files, "dircache"):
        files.dircache.use_listings_cache = False
    if type(files).__module__.partition(".")[0] == "s3fs":
        files.retries = 1
        own = {
            "retries": {"total_max_attempts": 1},
            "read_timeout": retry.timeout_s,
            "connect_timeout": retry.timeout_s,
        }
        files.config_kwargs = own | files.config_kwargs
    if type(files).__module__ == "fsspec.implementations.http":
        from aiohttp import ClientTimeout  # noqa: PLC0415  # installed where this file system can be opened

        each = ClientTimeout(total=None, sock_connect=retry.timeout_s, sock_read=retry.timeout_s)
        files.client_kwargs = {"timeout": each} | files.client_kwargs
