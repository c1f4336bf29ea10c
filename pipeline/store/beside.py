"""Files of a workspace that no ledger names: which there are, which are sent, and which were seen in the storage.

In: a working copy and its store. Out: objects like the files, and files like the objects.
`.remote.json` in the working copy records size and time of each such file as it was brought or sent, and the tag of its
object; so a file that changed here is known, and one that was deleted here is deleted there. It may be deleted: files
are then compared by MD5 with the tags of S3, or sent again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import DiskError, ObjectMissingError
from corpus.pipeline.store.multipart import tag_of
from corpus.pipeline.store.objects import PART_BYTES, ObjectInfo, Store, plain_key
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import SINGLE
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger

RECORD = ".remote.json"
TIMINGS = "timings.json"
_CARD = ("README.md", "croissant.json")
NAMED = {"raw": ("origin.json",), "packed": _CARD, "chat": _CARD, "ranking": _CARD}
"""Small files beside the outputs of a finished stage, which belong to it, by area; besides `timings.json`."""
FOLDERS = {"dedup": ("keys", "bands"), "decontaminate": ("evals",), "quality": ("positive",)}
"""Folders in that of a stage, for more than one run of it, by area."""
SMALL = ("manifests", "decontaminate/evals", "quality/positive")
"""Folders that are brought when a command begins."""
LIST = "exclude.txt"
_WRITTEN = ("report", "benchmarks")
"""Folders that are sent, and brought only where they are asked for."""
AT_ONCE = 8


class Beside:
    """The files that no ledger names, in one working copy."""

    def __init__(self, store: Store, root: Path) -> None:
        self._store, self._root = store, root
        self._record: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            loaded = json.loads((root / RECORD).read_bytes())
            self._record = loaded if isinstance(loaded, dict) else {}

    def tag(self, key: str) -> str | None:
        """The tag of the object that a file, unchanged since, was brought from or sent to."""
        known = self._record.get(key)
        return known[2] if known and known[:2] == _stamp(self._root / key) else None

    def note(self, key: str, tag: str) -> None:
        """Record that a file is as the object with this tag."""
        self._record[key] = [*(_stamp(self._root / key) or [0, 0]), tag]

    def save(self) -> None:
        """Write the record, if the disk takes it."""
        with contextlib.suppress(DiskError):
            write_atomic(self._root / RECORD, json.dumps(self._record, sort_keys=True).encode())

    # --- from the storage ---------------------------------------------------------------------------------------------

    def bring_small(self) -> None:
        """Make the small files like the objects."""
        found: dict[str, ObjectInfo] = {}
        for folder in SMALL:
            found |= self._store.infos(folder)
        with contextlib.suppress(ObjectMissingError):
            found[LIST] = self._store.info(LIST)
        here = {self._key(path) for folder in SMALL for path in files_in(self._root / folder)}
        here |= {LIST} if (self._root / LIST).is_file() else set()
        self._bring(found, sized=False)
        for key in here - found.keys():
            (self._root / key).unlink(missing_ok=True)
            self._record.pop(key, None)

    def bring_named(self, folder: Path, area: str) -> None:
        """Make the files beside the outputs of a finished stage like the objects."""
        found: dict[str, ObjectInfo] = {}
        for name in (TIMINGS, *NAMED.get(area, ())):
            key = self._key(folder / name)
            try:
                found[key] = self._store.info(key)
            except ObjectMissingError:
                (folder / name).unlink(missing_ok=True)
        self._bring(found, sized=False)

    def bring_folders(self, folders: Iterable[Path]) -> None:
        """Bring what is in some folders and is not here with its size."""
        for folder in folders:
            self._bring(self._store.infos(self._key(folder)), sized=True)

    def _bring(self, found: dict[str, ObjectInfo], *, sized: bool) -> None:
        missing = {key: info for key, info in found.items() if not self._is_here(plain_key(key), info, sized=sized)}

        def copy(key: str) -> None:
            self._store.local_copy(key, self._root / key, size=missing[key].size)
            self.note(key, missing[key].tag)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(copy, missing))

    def _is_here(self, key: str, info: ObjectInfo, *, sized: bool) -> bool:
        stamp = _stamp(self._root / key)
        return stamp is not None and (self.tag(key) == info.tag or (sized and stamp[0] == info.size))

    # --- to the storage -----------------------------------------------------------------------------------------------

    def send(self, paths: Iterable[Path]) -> None:
        """Send the files that are not there as they are here."""
        changed = [path for path in paths if self.tag(self._key(path)) is None]
        found: dict[str, ObjectInfo | None] = {}
        for folder, count in Counter(path.parent for path in changed).items():
            if count > AT_ONCE:  # one listing in place of a request for each
                found |= dict.fromkeys(map(self._key, changed)) | self._store.infos(self._key(folder))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(partial(self._send, found), changed))

    def _send(self, found: Mapping[str, ObjectInfo | None], path: Path) -> None:
        key = self._key(path)
        info = found.get(key)
        if key not in found:
            with contextlib.suppress(ObjectMissingError):
                info = self._store.info(key)
        if info is None or not is_same(path, info):
            self._store.upload(key, path)
            info = self._store.info(key)
        self.note(key, info.tag)

    def delete_gone(self) -> None:
        """Delete the objects of files that were here and are deleted."""
        kept = (*SMALL, *(f"{area}/{name}" for area, names in FOLDERS.items() for name in names))
        for key in [key for key in self._record if key == LIST or key.startswith(tuple(f"{name}/" for name in kept))]:
            if not (self._root / key).exists():
                self._store.delete(key)
                del self._record[key]

    def all_here(self) -> Iterator[Path]:
        """The files that a writing command sends in its end."""
        yield from (path for name in (*SMALL, *_WRITTEN) for path in files_in(self._root / name))
        yield from filter(Path.is_file, [self._root / LIST])
        for area in ("raw", "documents", "packed", "chat", "ranking", "models", *sorted(SINGLE)):
            folders = [self._root / area] if area in SINGLE else sorted((self._root / area).glob("[!.]*/"))
            for name in FOLDERS.get(area, ()):
                yield from (path for folder in folders for path in files_in(folder / name))
            for folder in folders:
                if (ledger := read_ledger(folder)) is not None:
                    yield from self.of_finished(folder, area, {output.path for output in ledger.outputs})

    def of_finished(self, folder: Path, area: str, outputs: Collection[str]) -> Iterator[Path]:
        """Those that belong to a stage whose outputs are complete: of a model all files but checkpoints."""
        if area != "models":
            yield from filter(Path.is_file, (folder / name for name in (TIMINGS, *NAMED.get(area, ()))))
            return
        for path in files_in(folder):
            name = path.relative_to(folder).as_posix()
            if name not in outputs and name != LEDGER and not name.startswith("checkpoint-"):
                yield path

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def files_in(folder: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones: locks, records and partial files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def is_same(path: Path, info: ObjectInfo) -> bool:
    """Whether a file is an object, by the MD5 that S3 gives as its tag."""
    if path.stat().st_size != info.size:
        return False
    if "-" in info.tag:
        return tag_of(path, PART_BYTES) == info.tag.strip('"')
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == info.tag.strip('"')


def _stamp(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
