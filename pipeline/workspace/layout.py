"""The workspace folder: paths of all stages, the lock of the writing command, and the cache of file digests.

Invariants: one command writes at a time, or jobs of one stage do; a digest is taken from the cache only while
the file's size, mtime, ctime and inode stay. Readers save the cache, too, without the lock: what another command saved
meanwhile stays in it.
Cost: each file is read once for its digest, at disk speed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from corpus.pipeline.errors import DiskError, ManifestError
from corpus.pipeline.manifest import DATASETS, NAME, Manifest, load, parse_file
from corpus.pipeline.workspace.files import reading, sha256_file, write_atomic
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest
from corpus.pipeline.workspace.lock import BEGINNING, alone, locked
from corpus.pipeline.workspace.remote import Remote, remote_of, shown

ROWS = {"text": "packed", "chat": "chat"}
"""Folder of the rows of each form."""
RANKING = "ranking"
"""Folder of the rankings, which are no rows of one length."""
SINGLE = {"dedup", "decontaminate", "quality", "tokenizer"}
"""Areas that are one stage over all datasets."""
REFERENCE = ".reference"
"""What the name of a file in `raw/` ends with that says where a file of records is, in place of that file."""
OUTSIDE = "init/"
"""Prefix of a ledger's inputs that are not in the workspace: the files of the model given with --init."""
OUTSIDE_REWARD = f"{OUTSIDE}reward/"
"""The same of the reward model given with --reward."""
TASK_MODEL = "task.json"
"""File in the folder of a model that was fine-tuned on a task: how it reads items."""
REWARD_SHIFT = "reward_shift"
"""Value of config.json that only a reward model has: a score is its logit less this."""
_DIGESTS = ".digests.json"
_READERS = 4


class Workspace:
    """A folder laid out as `docs/design.md` says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dedup = root / "dedup"
        """Documents that repeat others, in `lists/`, and the keys they were compared by."""
        self.decontaminate = root / "decontaminate"
        """Documents that hold evaluation items, in `lists/`, and the evaluation files in `evals/`."""
        self.quality = root / "quality"
        """Documents of low quality, in `lists/`, the model, and the scores of all documents in `scores/`."""
        self.tokenizer = root / "tokenizer"
        """`tokenizer.json` and its configuration."""
        self.models = root / "models"
        """One folder for each training run."""
        self.manifests = root / "manifests"
        """Manifests of users' own datasets: `<dataset>.toml`, and `<dataset>.source`, the place of its files."""
        self._new_digests: dict[str, list[Any]] = {}

    def raw(self, dataset: str) -> Path:
        """Downloaded files, unchanged."""
        return self.root / "raw" / dataset

    def documents(self, dataset: str) -> Path:
        """Kept documents, and dropped records in `rejected/`."""
        return self.root / "documents" / dataset

    def packed(self, dataset: str, form: str = "text") -> Path:
        """A DatasetDict of rows, for one form."""
        return self.root / ROWS[form] / dataset

    def rankings(self, dataset: str) -> Path:
        """A DatasetDict of answers to one question in order of preference."""
        return self.root / RANKING / dataset

    def datasets(self) -> tuple[str, ...]:
        """Names of all datasets: the built-in ones, then users' own, each in the order in which they came."""
        with reading(self.manifests):
            try:
                own = {path.stem for path in self.manifests.iterdir() if path.suffix == ".toml"}
            except PermissionError:
                raise
            except OSError:  # no such folder, or a broken workspace, which the command names
                own = set()
        came = self._order()
        return (*DATASETS, *sorted(own.difference(DATASETS), key=lambda name: (came.get(name, len(came)), name)))

    def _order(self) -> dict[str, int]:
        """The place of each user's dataset in the order in which their manifests came."""
        try:
            names = (self.manifests / "order").read_text(encoding="utf-8").split()
        except OSError:
            names = []
        return {name: place for place, name in enumerate(dict.fromkeys(names))}

    def manifest(self, dataset: str) -> Manifest:
        """The manifest of a dataset, from the package or from this workspace.

        Raises:
            ManifestError: no dataset has this name, or its manifest is malformed.

        """
        path = self.manifests / f"{dataset}.toml"
        if dataset in DATASETS or not NAME.fullmatch(dataset) or not path.is_file():
            return load(dataset, self.datasets())
        manifest = parse_file(path)
        if manifest.name != dataset:
            raise ManifestError(
                f"{path} describes {manifest.name}, not {dataset}", hint="Give it the name of its dataset."
            )
        return manifest

    def add_manifest(self, path: Path) -> tuple[Manifest, str]:
        """Keep a copy of a user's manifest; returns it with what changed: `new`, `changed` or nothing.

        The caller holds `writing()`.

        Raises:
            ManifestError: the manifest is malformed, cannot be read, or has the name of a built-in dataset.

        """
        manifest = parse_file(path)
        kept, data = self.manifests / f"{manifest.name}.toml", path.read_bytes()
        before = kept.read_bytes() if kept.is_file() else None
        place = manifest.source
        if place and "://" not in place:
            place = str((path.parent / Path(place).expanduser()).resolve())
        order = self._order()
        if manifest.name not in order:
            write_atomic(self.manifests / "order", "".join(f"{name}\n" for name in (*order, manifest.name)).encode())
        write_atomic(kept.with_suffix(".source"), f"{place}\n{path.resolve()}\n".encode())
        if before != data:
            write_atomic(kept, data)
        return manifest, "new" if before is None else "changed" if before != data else ""

    def source_of(self, dataset: str) -> str | None:
        """Where the manifest of a user's dataset says that its files are; None where it does not say."""
        return self._given(dataset)[0] or None

    def edited_manifest(self, dataset: str) -> Path | None:
        """The file that a user's manifest was copied from, when it has changed since."""
        kept, given = self.manifests / f"{dataset}.toml", self._given(dataset)[1]
        if not given or not Path(given).is_file() or not kept.is_file():
            return None
        return Path(given) if Path(given).read_bytes() != kept.read_bytes() else None

    def remove_manifest(self, dataset: str) -> None:
        """Forget a user's dataset."""
        for suffix in (".toml", ".source"):
            (self.manifests / f"{dataset}{suffix}").unlink(missing_ok=True)

    def _given(self, dataset: str) -> tuple[str, str]:
        """The place of a user's files, and of the manifest as it was given."""
        try:
            text = (self.manifests / f"{dataset}.source").read_text(encoding="utf-8")
        except FileNotFoundError:
            return "", ""
        place, _, given = text.partition("\n")
        return place, given.rstrip("\n")

    def finished(self, area: str) -> list[str]:
        """Sorted names under `raw`, `documents`, `packed`, `chat`, `ranking` or `models` whose stage is finished.

        Raises:
            DiskError: the folder, or one in it, may not be read.

        """
        folder = self.root / area
        with reading(folder):
            try:
                names = sorted(path.name for path in folder.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [name for name in names if (folder / name / LEDGER).exists()]

    def relative(self, path: Path) -> str:
        """`path` relative to the workspace, as a ledger names it; the path itself where it lies outside."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @contextlib.contextmanager
    def writing(self, command: str) -> Iterator[None]:
        """Lock the workspace for one writing command; a second one waits two seconds, then raises BusyError.

        Raises:
            BusyError: another command holds the workspace.
            DiskError: the workspace cannot be created or written.

        """
        hint = "Wait until it is done, or give this command another --workspace."
        with locked(self.root, command, hint=hint), self._digests_saved(), self._held(command):
            yield

    @contextlib.contextmanager
    def sharing(self, command: str, kind: str) -> Iterator[None]:
        """Lock the workspace for one of several jobs that each make a share of a stage's pieces.

        `kind` is what jobs have in common that write beside each other: the stage and its settings.

        Raises:
            BusyError: a command holds the workspace, or jobs of another kind do.
            DiskError: the workspace cannot be written.

        """
        hint = "Jobs write beside jobs of the same stage with the same settings alone: wait until the others are done."
        with locked(self.root, command, hint=hint, kind=kind), self._digests_saved(), self._held(command, kind):
            yield

    def _held(self, command: str, kind: str = "") -> contextlib.AbstractContextManager[None]:
        """The claim of a workspace in a storage, where no lock reaches."""
        return contextlib.nullcontext() if self.remote is None else self.remote.holding(command, kind)

    @property
    def remote(self) -> Remote | None:
        """The storage that the workspace lies in; None for a folder alone."""
        return remote_of(self.root)

    @property
    def shown(self) -> str:
        """The workspace in messages: its folder, or its URL."""
        return shown(self.root)

    @contextlib.contextmanager
    def beginning(self) -> Iterator[None]:
        """The moment in which a job makes way for new outputs, while no other job does; waits for the others."""
        with alone(self.root / BEGINNING):
            yield

    @contextlib.contextmanager
    def _digests_saved(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.save_digests()

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, from the cache while its size, times and inode stay."""
        known, stamp = self._known(path), _stamp(path)
        if known and known[:4] == stamp:
            return str(known[4])
        value = sha256_file(path)
        self._remember(path, stamp, value)
        return value

    def knows(self, path: Path) -> bool:
        """Whether `digest` takes a file's digest from the cache."""
        known = self._known(path)
        return known is not None and known[:4] == _stamp(path)

    def is_touched(self, path: Path, sha256: str) -> bool:
        """Whether a file that had this digest has other bytes now, or another date: it was written or copied since.

        Nothing is read but the cache; a file that it does not know is taken as untouched.
        """
        known = self._known(path)
        return known is not None and (known[:2] != _stamp(path)[:2] or known[4] != sha256)

    def remember_digest(self, path: Path, sha256: str) -> None:
        """Cache a digest that was computed while the file was written."""
        self._remember(path, _stamp(path), sha256)

    def _known(self, path: Path) -> list[Any] | None:
        return self._digests.get(os.path.relpath(path, self.root))

    def _remember(self, path: Path, stamp: list[int], sha256: str) -> None:
        key = os.path.relpath(path, self.root)
        self._digests[key] = self._new_digests[key] = [*stamp, sha256]

    def file_digest(self, path: Path, base: Path | None = None) -> FileDigest:
        """The ledger entry of a file, named relative to `base` or the workspace."""
        name = path.relative_to(base or self.root).as_posix()
        return FileDigest(name, path.stat().st_size, self.digest(path))

    def file_digests(self, paths: Iterable[Path], base: Path | None = None) -> list[FileDigest]:
        """The ledger entries of many files, hashed in parallel."""
        _ = self._digests  # read once, before several threads ask for it
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda path: self.file_digest(path, base), paths))

    @cached_property
    def _digests(self) -> dict[str, list[Any]]:
        return self._read_digests()

    def _read_digests(self) -> dict[str, list[Any]]:
        try:
            loaded = json.loads((self.root / _DIGESTS).read_bytes())
        except (OSError, ValueError):
            return {}
        return loaded if isinstance(loaded, dict) else {}

    def save_digests(self) -> None:
        """Add the new digests to the cache on the disk, if it can be written; for commands that only read, too."""
        if not self._new_digests or not self.root.is_dir():
            return
        merged = self._read_digests() | self._new_digests  # another command may have saved since
        present = {key: value for key, value in merged.items() if (self.root / key).exists()}
        with contextlib.suppress(OSError, DiskError):  # a cache: on a full disk the next run hashes the files once more
            write_atomic(self.root / _DIGESTS, json.dumps(present, sort_keys=True).encode())
            self._new_digests.clear()


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
