"""The three kinds of location that --source can name, with one interface: a local folder, a web server, any other
fsspec file system.

In: a path or URL.
Out: the files that are there, by relative name, each with its opener.
Invariants: a symbolic link that leads out of a local folder is not followed. File system errors become SourceError
during a listing and DownloadError during a read, without user names and passwords.
Cost: a stat for each name in a folder, a request for each name elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from corpus.pipeline.download.http_client import HttpClient
from corpus.pipeline.download.remote_file import FileVersion, RemoteFile, local_file, seeking_opener
from corpus.pipeline.download.retry import Retrier
from corpus.pipeline.errors import CorpusError, SourceError
from corpus.pipeline.humanize import error_text, shown_url
from corpus.pipeline.progress import Progress

_COPY_BYTES = 1 << 20
_WALK_LIMIT = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalFolder:
    """A local folder. `exclude` is the workspace's part of it."""

    root: Path
    exclude: Path | None = None
    skipped: list[str] = field(default_factory=list)
    """Links out of the folder, which were not followed."""

    @property
    def shown(self) -> str:
        """The path as given."""
        return str(self.root)

    def get(self, name: str) -> RemoteFile | None:
        """The file of this relative name, unless a link leads out of the folder."""
        path = self.root / name
        with source_errors(str(path)):
            if not path.is_file():
                return None
            real = path.resolve()
            if not real.is_relative_to(self.root.resolve()):
                self.skipped.append(name)
                return None
            return local_file(real, name)

    def subfolder(self, name: str) -> LocalFolder | None:
        """A folder in it, unless that is a symbolic link."""
        path = self.root / name
        is_inside = path.is_dir() and not path.is_symlink()
        return LocalFolder(root=path, exclude=self.exclude, skipped=self.skipped) if is_inside else None

    def walk(self) -> Iterator[str]:
        """All files except hidden ones, in order. Links to folders are not followed."""
        count = 0

        def fail(error: OSError) -> None:
            raise error

        with source_errors(self.shown):
            for top, folders, names in os.walk(self.root, onerror=fail):
                inside = Path(top)
                links = [name for name in folders if (inside / name).is_symlink()]
                self.skipped.extend((inside / name).relative_to(self.root).as_posix() for name in links)
                folders[:] = sorted(name for name in folders if self._is_searched(inside / name))
                for name in sorted(names):
                    count += 1
                    if not name.startswith("."):
                        yield (inside / name).relative_to(self.root).as_posix()
                if count > _WALK_LIMIT:
                    raise SourceError(
                        f"{self.shown} holds more than {_WALK_LIMIT:,} files", hint="Give a folder closer to the files."
                    )

    def _is_searched(self, path: Path) -> bool:
        is_hidden = path.name.startswith(".") or path.name == "__MACOSX"
        return not is_hidden and (self.exclude is None or path.resolve() != self.exclude.resolve())

    def read_text(self, name: str) -> str:
        """The first mebibyte of a file in it; empty when there is none."""
        file = self.get(name)
        if file is None or file.local is None:
            return ""
        with source_errors(self.shown), file.local.open("rb") as stream:
            return stream.read(_COPY_BYTES).decode("utf-8", "replace")

    def contents(self) -> list[str]:
        """Names directly in it."""
        with source_errors(self.shown):
            return sorted(path.name + ("/" if path.is_dir() else "") for path in self.root.iterdir())


@dataclass(frozen=True, kw_only=True, slots=True)
class _UrlPrefix:
    """A URL below which files are named."""

    url: str

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        return shown_url(self.url)

    def _url_of(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpPrefix(_UrlPrefix):
    """A URL prefix on a web server, which can be probed for names but not listed."""

    client: HttpClient
    progress: Progress
    failures: dict[str, str] = field(default_factory=dict)
    """Why a URL has no file, by URL."""

    def get(self, name: str) -> RemoteFile | None:
        """The file of this name below the prefix."""
        return self.at(self._url_of(quote(name)), name)

    def at(self, url: str, name: str) -> RemoteFile | None:
        """The file at a URL."""
        shown = shown_url(url)
        answer = self._retrier(url).call(lambda: self.client.probe(url))
        if isinstance(answer, str):
            self.failures[shown] = answer
            return None
        return RemoteFile(path=name, shown=shown, origin=shown, opener=self.client.opener(url), bytes=answer.total)

    def subfolder(self, name: str) -> HttpPrefix:
        """The prefix one level deeper."""
        return replace(self, url=self._url_of(quote(name)))

    def walk(self) -> Iterator[str] | None:
        """None: it cannot be listed."""
        return None

    def read_text(self, name: str) -> str:
        """The text of a small file below the prefix; empty when there is none."""
        url = self._url_of(quote(name))
        return self._retrier(url).call(lambda: self.client.small_text(url))

    def contents(self) -> list[str]:
        """The server's answers, each once."""
        return sorted(set(self.failures.values()))

    def _retrier(self, url: str) -> Retrier:
        return Retrier(shown_url(url), self.client.retry, self.progress)


@dataclass(frozen=True, kw_only=True, slots=True)
class FsspecPrefix(_UrlPrefix):
    """A URL prefix on any other file system that fsspec opens."""

    files: Any
    """The fsspec file system."""
    root: str
    """The path of the prefix on that file system."""

    def get(self, name: str) -> RemoteFile | None:
        """The file of this name below the prefix."""
        key, shown = self._key(name), shown_url(self._url_of(name))
        info = self._info(key)
        if info.get("type") != "file":
            return None

        def version() -> FileVersion:
            self.files.invalidate_cache()
            size = self.files.info(key).get("size")
            return FileVersion(etag=str(self.files.ukey(key)), total=size if isinstance(size, int) else None)

        opener = seeking_opener(lambda: self.files.open(key, "rb"), version, shown)
        return RemoteFile(path=name, shown=shown, origin=shown, opener=opener, bytes=info.get("size"))

    def subfolder(self, name: str) -> FsspecPrefix | None:
        """The folder of this name below the prefix."""
        key = self._key(name)
        is_folder = self._info(key).get("type") == "directory"
        return replace(self, url=self._url_of(name), root=key) if is_folder else None

    def walk(self) -> Iterator[str]:
        """All files below the prefix, in order."""
        with source_errors(self.shown):
            names = self.files.find(self.root)
        start = len(self.root.rstrip("/")) + 1
        yield from sorted(name[start:] for name in names)

    def read_text(self, name: str) -> str:
        """The first mebibyte of a file below the prefix; empty when there is none."""
        if self.get(name) is None:
            return ""
        with source_errors(self.shown):
            return bytes(self.files.cat_file(self._key(name), 0, _COPY_BYTES)).decode("utf-8", "replace")

    def contents(self) -> list[str]:
        """Names directly below the prefix."""
        with source_errors(self.shown):
            return sorted(PurePosixPath(name).name for name in self.files.ls(self.root, detail=False))

    def _info(self, key: str) -> dict[str, Any]:
        with source_errors(self.shown), suppress(FileNotFoundError, NotADirectoryError):
            return dict(self.files.info(key))
        return {}

    def _key(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"


Location = LocalFolder | HttpPrefix | FsspecPrefix


@contextmanager
def source_errors(shown: str, hint: str = "Check the --source.") -> Iterator[None]:
    """Turn what a file system raises during a listing into SourceError."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # fsspec's back-ends raise what their libraries raise
        raise SourceError(f"{shown} cannot be read: {error_text(error)}", hint=hint) from error
