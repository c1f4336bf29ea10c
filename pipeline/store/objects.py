"""Whole objects by key, on any file system that fsspec opens.

In: keys below a prefix, and bytes.
Out: bytes; sizes and tags; sorted keys.
Invariants: an object appears whole or not at all, and is never renamed or appended to; what is read has the length that
the store says, and the SHA-256 that the caller knows; a listing is asked anew each time; each request is repeated after
a failure that can pass, and a limited number of times. No message has credentials.
Cost: an object is in memory whole, but in `local_copy`, which holds one block. `read` without a known size asks for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from corpus.pipeline.errors import CorpusError, ObjectMissingError, StoreError
from corpus.pipeline.store.failures import Failure, Kind, OtherBytesError, ShortBodyError, failure_of
from corpus.pipeline.store.retry import Retry
from corpus.pipeline.workspace.files import atomic, sha256_file

T = TypeVar("T")
BLOCK_BYTES = 8 << 20
MOST_IN_MEMORY = 32 << 20
"""A larger file is sent in several requests, where the storage joins them at the end."""
_CREATES = frozenset({"s3", "s3a"})
"""Protocols whose file system refuses a write with mode `create` where the object exists, tried with it."""
_MOST_PARTS = 9_000
_UPLOADS = frozenset({"s3", "s3a"})
"""Protocols whose file system sends a file in parts, which are an object only once all are there, tried with it."""
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws; a server of your own is named by "
    "AWS_ENDPOINT_URL."
}


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's size, and what tells its versions apart."""

    size: int
    tag: str
    """Its ETag, or what the file system has in its place."""


class Store:
    """Objects below a prefix of a file system; keys are relative, with slashes."""

    def __init__(self, files: Any, root: str, shown: str, retry: Retry | None = None) -> None:
        self.files = files
        self.shown = shown.rstrip("/")
        """Its URL in messages, without secrets."""
        self._root = root.rstrip("/")
        self._retry = retry or Retry()

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, key: str, *, size: int | None = None, sha256: str | None = None) -> bytes:
        """The bytes of an object; `size` and `sha256` are what it must have, where the caller knows them.

        Raises:
            ObjectMissingError: there is no such object.
            StoreError: it cannot be read, or has another size or other bytes.

        """

        def attempt() -> bytes:
            before = self.info(key) if size is None else None
            data = bytes(self.files.cat_file(self._path(key)))
            if size is not None and len(data) != size and (there := self.info(key).size) != size:
                raise OtherBytesError(f"it has {there:,} bytes, not {size:,}")
            _check_length(len(data), before.size if before else size)
            if before is not None and sha256 is None and len(data) > BLOCK_BYTES and self.info(key) != before:
                raise ShortBodyError("the object was replaced while it was read")  # in several requests
            _check_digest(hashlib.sha256(data).hexdigest() if sha256 else None, sha256)
            return data

        return self._repeated(key, attempt)

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes from `start` up to `end` of an object, for each pair; all lie inside it.

        Raises:
            ObjectMissingError: there is no such object.
            StoreError: it cannot be read, or ends before a range does.

        """
        wanted = [(start, end) for start, end in ranges if start < end]

        def attempt() -> list[bytes]:
            starts, ends = [start for start, _ in wanted], [end for _, end in wanted]
            found = self.files.cat_ranges([self._path(key)] * len(wanted), starts, ends, on_error="raise")
            if list(map(len, found)) != [end - start for start, end in wanted]:
                if any(len(block) > end - start for block, (start, end) in zip(found, wanted, strict=True)):
                    raise StoreError(
                        f"{self._shown(key)}: the server ignores the Range header and sends the whole object",
                        hint="Use a server that answers range requests, such as nginx, or copy the files to a disk.",
                    )
                if max(ends) > (there := self.info(key).size):
                    raise OtherBytesError(f"it has {there:,} bytes, not {max(ends):,}")
                raise ShortBodyError(f"{sum(map(len, found)):,} bytes came")
            return list(map(bytes, found))

        blocks = iter(self._repeated(key, attempt) if wanted else ())
        return [next(blocks) if start < end else b"" for start, end in ranges]

    def pin(self, tag: str) -> bool:
        """Let each read of an object of another tag fail; False where the file system has no word for that."""
        if type(self.files).__module__.partition(".")[0] != "s3fs":
            return False
        self.files.s3_additional_kwargs = {**self.files.s3_additional_kwargs, "IfMatch": tag}
        return True

    def info(self, key: str) -> ObjectInfo:
        """Size and tag of an object. Raises ObjectMissingError or StoreError."""
        return self._repeated(key, lambda: self._info(key))

    def modified(self, key: str) -> float | None:
        """When an object was written, by the clock of the storage; None where it does not say."""
        try:
            return float(self.files.modified(self._path(key)).timestamp())
        except Exception:  # noqa: BLE001  # fsspec's back-ends raise what their libraries raise, and some have no times
            return None

    def keys(self, prefix: str = "") -> list[str]:
        """The keys below a prefix, which ends at a slash; sorted. Raises StoreError."""
        return [*self.infos(prefix)]

    def infos(self, prefix: str = "") -> dict[str, ObjectInfo]:
        """Sizes and tags of the objects below a prefix, by key, sorted. Raises StoreError."""
        top = self._path(prefix) if prefix else self._root

        def attempt() -> dict[str, Any]:
            self.files.invalidate_cache()
            return dict(self.files.find(top, detail=True))

        try:
            found = self._repeated(prefix, attempt)
        except ObjectMissingError:
            return {}
        start = len(self._root) + 1
        own = (path for path in sorted(found) if path.startswith(f"{top}/") and self._is_whole(path))
        return {path[start:]: ObjectInfo(int(found[path]["size"]), self._tag(found[path])) for path in own}

    def local_copy(
        self, key: str, path: Path, *, size: int | None = None, sha256: str | None = None,
        before_block: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Copy an object to a file, which appears whole or not at all.

        `before_block` is called before each block of `BLOCK_BYTES`, and ends the copy by raising.

        Raises:
            ObjectMissingError: there is no such object.
            StoreError: it cannot be read, or has another size or other bytes.
            DiskError: the file cannot be written.

        """

        def attempt() -> None:
            before = self.info(key)
            if size is not None and before.size != size:
                raise OtherBytesError(f"it has {before.size:,} bytes, not {size:,}")
            digest = hashlib.sha256()
            with atomic(path) as file:
                for start in range(0, before.size, BLOCK_BYTES):
                    before_block()
                    (block,) = self.read_ranges(key, [(start, min(start + BLOCK_BYTES, before.size))])
                    file.write(block)
                    digest.update(block)
                _check_digest(digest.hexdigest(), sha256)
                if sha256 is None and self.info(key) != before:
                    raise ShortBodyError("the object was replaced while it was copied")

        self._repeated(key, attempt)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes) -> None:
        """Write an object whole, in place of one that may be there.

        Raises:
            StoreError: it cannot be written, or this file system has no whole writes.

        """
        if not self._writes_whole:
            raise StoreError(
                f"{self.shown} takes no object whole: a killed writer would leave a part of one",
                hint="Write to a disk or to a bucket (s3://).",
            )
        self._repeated(key, lambda: self._put(key, data))

    def upload(self, key: str, path: Path, sha256: str | None = None) -> None:
        """Write a file as an object, whole, in place of one that may be there; `sha256` is what it must have.

        Raises:
            StoreError: it cannot be written, or the file has other bytes.

        """
        size = path.stat().st_size
        if size <= MOST_IN_MEMORY or not self._uploads_whole:
            data = path.read_bytes()
            _check_file(path, sha256, hashlib.sha256(data).hexdigest)
            self.write(key, data)
            return
        _check_file(path, sha256, lambda: sha256_file(path))

        def attempt() -> None:
            self._upload(key, path)
            if (there := self._info(key).size) != size:
                raise ShortBodyError(f"{there:,} bytes are there, not {size:,}")

        self._repeated(key, attempt)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object that is not there yet; whether it was written. Of several writers one writes.

        An answer can be lost, and the repeated write then finds its own object, so `data` must name their writer.

        Raises:
            StoreError: it cannot be written, or this file system cannot refuse a write where an object is.

        """
        if not self.can_create:
            raise StoreError(
                f"{self.shown} cannot refuse a write where an object is already",
                hint="Let one command alone write there, or use a disk or a bucket (s3://).",
            )
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                self._create(key, data)
            except Exception as error:  # fsspec's back-ends raise what their libraries raise
                if failure_of(error).kind is not Kind.EXISTS:
                    raise
                return attempts > 1 and self.read(key) == data
            return True

        return self._repeated(key, attempt)

    def delete(self, key: str) -> None:
        """Delete an object, if it is there. Raises StoreError."""
        try:
            self._repeated(key, lambda: self.files.rm_file(self._path(key)))
        except ObjectMissingError:
            return

    @property
    def can_create(self) -> bool:
        """Whether `write_if_absent` works here."""
        protocol = self.files.protocol
        return not _CREATES.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)

    # --- the file system ----------------------------------------------------------------------------------------------

    @property
    def _writes_whole(self) -> bool:
        """Whether a write is one request: the defaults of fsspec open a stream, which a killed writer leaves torn."""
        kind = type(self.files)
        if isinstance(self.files, AsyncFileSystem):
            return kind._pipe_file is not AsyncFileSystem._pipe_file
        return kind.pipe_file is not AbstractFileSystem.pipe_file

    @property
    def _uploads_whole(self) -> bool:
        """Whether a file in several requests is an object only after the last of them."""
        protocol = self.files.protocol
        return not _UPLOADS.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)

    def _put(self, key: str, data: bytes) -> None:
        self.files.pipe_file(self._path(key), data)

    def _upload(self, key: str, path: Path) -> None:
        part = max(MOST_IN_MEMORY // 4, path.stat().st_size // _MOST_PARTS + 1)
        self.files.put_file(str(path), self._path(key), chunksize=part, max_concurrency=4)

    def _create(self, key: str, data: bytes) -> None:
        """Write, or raise what `failure_of` knows as EXISTS."""
        self.files.pipe_file(self._path(key), data, mode="create")

    def _is_whole(self, path: str) -> bool:
        """Whether a listed file is an object."""
        return not path.endswith("/")  # what consoles make as folders

    def _info(self, key: str) -> ObjectInfo:
        self.files.invalidate_cache()
        info = self.files.info(self._path(key))
        if info.get("type") != "file":
            raise FileNotFoundError("there is no such object")
        if not isinstance(info.get("size"), int):
            raise OSError("the server does not say how large it is")
        return ObjectInfo(info["size"], self._tag(info))

    def _tag(self, info: dict[str, Any]) -> str:
        known = next((info[name] for name in ("ETag", "etag", "md5Hash", "content_md5") if info.get(name)), None)
        return str(known) if known else hashlib.sha256(repr(sorted(info.items(), key=str)).encode()).hexdigest()

    def _path(self, key: str) -> str:
        """The path of a key on the file system."""
        return f"{self._root}/{plain_key(key)}"

    def _repeated(self, key: str, attempt: Callable[[], T]) -> T:
        """The result of an attempt, repeated after failures that can pass."""
        failures = 0
        while True:
            try:
                return attempt()
            except CorpusError:  # the disk's too: another request does not mend them
                raise
            except OtherBytesError as error:
                failures += 1
                if failures >= self._retry.other_bytes:
                    raise StoreError(
                        f"{self._shown(key)}: {error}", hint="It was damaged or replaced: write it there again."
                    ) from error
            except Exception as error:  # fsspec's back-ends raise what their libraries raise
                failures, failure = failures + 1, failure_of(error)
                if failure.kind is not Kind.BUSY or failures >= self._retry.attempts:
                    raise self._failed(key, failure, failures) from error
            self._retry.wait(failures)

    def _failed(self, key: str, failure: Failure, failures: int) -> StoreError:
        shown = self._shown(key)
        match failure.kind:
            case Kind.MISSING:
                return ObjectMissingError(f"{shown} is not there", hint="Check the URL, and what lies below it.")
            case Kind.NO_BUCKET:
                return StoreError(f"{shown}: there is no such bucket", hint="Check the URL; a bucket must exist.")
            case Kind.REFUSED:
                hint = _CREDENTIALS.get(shown.partition("://")[0], "Check the credentials of the file system.")
                return StoreError(f"{shown}: access is refused: {failure.text}", hint=hint)
            case Kind.EXISTS:
                return StoreError(
                    f"{shown} was replaced since it was referred to",
                    hint="Run `corpus download --by-reference` again with the same --source, then this command.",
                )
            case Kind.BUSY:
                tries = f"given up after {failures} attempts"
                return StoreError(f"{shown}: {failure.text}; {tries}", hint="Run the same command again later.")
            case _:
                return StoreError(f"{shown}: {failure.text}")

    def _shown(self, key: str) -> str:
        return f"{self.shown}/{key}" if key else self.shown


def plain_key(key: str) -> str:
    """The key, unless it could lead elsewhere. Raises StoreError."""
    if "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
        raise StoreError(f"{key!r} is no key of an object")
    return key


def _check_file(path: Path, expected: str | None, digest: Callable[[], str]) -> None:
    """Refuse to send a file that has changed since its digest was taken."""
    if expected is not None and (found := digest()) != expected:
        raise StoreError(
            f"{path} was changed: SHA-256 {found[:12]}..., not {expected[:12]}...",
            hint="Delete it and run the same command again.",
        )


def _check_length(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise ShortBodyError(f"{found:,} bytes came, not {expected:,}")


def _check_digest(found: str | None, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise OtherBytesError(
            f"it has other bytes than expected (SHA-256 {str(found)[:12]}..., not {expected[:12]}...)"
        )
