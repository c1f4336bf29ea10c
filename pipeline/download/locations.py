"""The three kinds of place that --source can name, behind one face: a local folder, a web server, any other fsspec
file system.

In: a path or URL. Out: the files that are there, by relative name, and how each is opened at an offset.
Invariants: a local file is given only if it truly lies in the folder, links included; what a file system raises
becomes SourceError (while looking) or DownloadError (while reading), with user names and passwords taken out.
Cost: a stat for each question to a folder, a request for each to the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

from corpus.pipeline.download.http_client import Web, shown_url
from corpus.pipeline.download.remote_file import GIVEN, File, Stamp, local_file, seeking_opener, words
from corpus.pipeline.download.retry import Tries
from corpus.pipeline.errors import CorpusError, SourceError
from corpus.pipeline.progress import Progress

_COPY_BYTES = 1 << 20
_WALK_LIMIT = 200_000


class Place(Protocol):
    """Where files lie."""

    @property
    def shown(self) -> str:
        """What messages call it."""

    @property
    def origin(self) -> str:
        """What `origin.json` calls it."""

    def get(self, name: str) -> File | None:
        """The file of this relative name, if it is there."""

    def below(self, name: str) -> Place | None:
        """The folder of this name, if there may be one."""

    def walk(self) -> Iterator[str] | None:
        """Relative names of all files; None when the place cannot be listed."""

    def text(self, name: str) -> str:
        """A small text file; empty when there is none."""

    def seen(self) -> list[str]:
        """What an error should say is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A local folder. `exclude` is the part of it that is the workspace's own."""

    root: Path
    exclude: Path | None = None
    skipped: list[str] = field(default_factory=list)
    """Links that lead out of it and were not followed."""
    origin: str = GIVEN

    @property
    def shown(self) -> str:
        """The path as it is."""
        return str(self.root)

    def get(self, name: str) -> File | None:
        """The file of this relative name, unless a link leads out of the folder."""
        path = self.root / name
        with looking(str(path)):
            if not path.is_file():
                return None
            real = path.resolve()
            if not real.is_relative_to(self.root.resolve()):
                self.skipped.append(name)
                return None
            return local_file(real, name)

    def below(self, name: str) -> Folder | None:
        """A folder in it, unless that is a link."""
        path = self.root / name
        is_inside = path.is_dir() and not path.is_symlink()
        return Folder(root=path, exclude=self.exclude, skipped=self.skipped) if is_inside else None

    def walk(self) -> Iterator[str]:
        """All files but hidden ones, in order. Links to folders are not followed."""
        count = 0
        with looking(self.shown):
            for top, folders, names in os.walk(self.root, onerror=_reraise):
                inside = Path(top)
                links = [name for name in folders if (inside / name).is_symlink()]
                self.skipped.extend((inside / name).relative_to(self.root).as_posix() for name in links)
                folders[:] = sorted(name for name in folders if self._is_ours(inside / name))
                for name in sorted(names):
                    count += 1
                    if not name.startswith("."):
                        yield (inside / name).relative_to(self.root).as_posix()
                if count > _WALK_LIMIT:
                    raise SourceError(
                        f"{self.shown} holds more than {_WALK_LIMIT:,} files", hint="Give a folder closer to the files."
                    )

    def _is_ours(self, path: Path) -> bool:
        is_hidden = path.name.startswith(".") or path.name == "__MACOSX"
        return not is_hidden and (self.exclude is None or path.resolve() != self.exclude.resolve())

    def text(self, name: str) -> str:
        """A small text file in it."""
        file = self.get(name)
        if file is None or file.local is None:
            return ""
        with looking(self.shown), file.local.open("rb") as stream:
            return stream.read(_COPY_BYTES).decode("utf-8", "replace")

    def seen(self) -> list[str]:
        """Names of what lies in it."""
        with looking(self.shown):
            return sorted(path.name + ("/" if path.is_dir() else "") for path in self.root.iterdir())


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """A URL prefix on a web server, which can be asked for names but not listed."""

    url: str
    web: Web
    progress: Progress
    said: dict[str, str] = field(default_factory=dict)
    """What the server said to URLs at which there is nothing."""

    @property
    def shown(self) -> str:
        """The prefix without secrets."""
        return shown_url(self.url)

    @property
    def origin(self) -> str:
        """The prefix without secrets."""
        return self.shown

    def get(self, name: str) -> File | None:
        """The file of this name below the prefix."""
        return self.at(f"{self.url.rstrip('/')}/{quote(name)}", name)

    def at(self, url: str, name: str) -> File | None:
        """The file at a URL of its own."""
        answer = self._tries(url).call(lambda: self.web.probe(url))
        if isinstance(answer, str):
            self.said[shown_url(url)] = answer
            return None
        shown = shown_url(url)
        return File(path=name, shown=shown, origin=shown, opener=self.web.opener(url), bytes=answer.total)

    def below(self, name: str) -> Site:
        """The prefix one level deeper."""
        return Site(url=f"{self.url.rstrip('/')}/{quote(name)}", web=self.web, progress=self.progress, said=self.said)

    def walk(self) -> None:
        """It cannot be listed."""

    def text(self, name: str) -> str:
        """A small text file below the prefix."""
        url = f"{self.url.rstrip('/')}/{quote(name)}"
        return self._tries(url).call(lambda: self.web.small_text(url))

    def seen(self) -> list[str]:
        """What the server said, each answer once."""
        return sorted(set(self.said.values()))

    def _tries(self, url: str) -> Tries:
        return Tries(shown_url(url), self.web.patience, self.progress)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """A prefix on any other file system that fsspec opens."""

    url: str
    files: Any
    """The fsspec file system."""
    root: str
    """The prefix as that file system names it."""

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        return shown_url(self.url)

    @property
    def origin(self) -> str:
        """The URL without secrets."""
        return self.shown

    def get(self, name: str) -> File | None:
        """The file of this name below the prefix."""
        info = self._info(self._key(name))
        if info is None or info["type"] != "file":
            return None
        shown = shown_url(f"{self.url.rstrip('/')}/{name}")
        key = self._key(name)
        opener = seeking_opener(lambda: self.files.open(key, "rb"), lambda: _bucket_stamp(self.files, key), shown)
        return File(path=name, shown=shown, origin=shown, opener=opener, bytes=info.get("size"))

    def below(self, name: str) -> Bucket | None:
        """The folder of this name below the prefix."""
        info = self._info(self._key(name))
        if info is None or info["type"] != "directory":
            return None
        return Bucket(url=f"{self.url.rstrip('/')}/{name}", files=self.files, root=self._key(name))

    def walk(self) -> Iterator[str]:
        """All files below the prefix, in order."""
        with looking(self.shown):
            names = self.files.find(self.root)
        start = len(self.root.rstrip("/")) + 1
        yield from sorted(name[start:] for name in names)

    def text(self, name: str) -> str:
        """A small text file below the prefix."""
        if self.get(name) is None:
            return ""
        with looking(self.shown):
            return bytes(self.files.cat_file(self._key(name), 0, _COPY_BYTES)).decode("utf-8", "replace")

    def seen(self) -> list[str]:
        """Names directly below the prefix."""
        with looking(self.shown):
            return sorted(PurePosixPath(name).name for name in self.files.ls(self.root, detail=False))

    def _info(self, key: str) -> dict[str, Any] | None:
        with looking(self.shown):
            try:
                return dict(self.files.info(key))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def _key(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"


def _bucket_stamp(files: Any, key: str) -> Stamp:
    files.invalidate_cache()
    size = files.info(key).get("size")
    return Stamp(etag=str(files.ukey(key)), total=size if isinstance(size, int) else None)


@contextmanager
def looking(shown: str) -> Iterator[None]:
    """What a file system raises while it is asked what is there."""
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # fsspec's back-ends raise what their libraries raise
        raise SourceError(f"{shown} cannot be looked into: {words(error)}", hint="Check the --source.") from error


def _reraise(error: OSError) -> None:
    raise error
