"""The working copy of a workspace in a storage: what is brought, what is sent, and when.

In: a store and a folder of this machine. Out: a `corpus.pipeline.workspace.remote.Remote`.
Brought when a command begins: ledgers, receipts, manifests and other small files. Brought before they are read:
outputs of stages, by the size and SHA-256 that their ledger says. What is here stays for the next command, as long as
it is what the ledger says.
Sent: the outputs of a piece and then its receipt, by the process that made it; other outputs and then the ledger, when
the stage is finished; in the end of a command the files that no ledger names (`store.beside`).
Invariants: objects are written whole; a ledger or receipt after what it names; nothing here replaces what the storage
says is finished: a ledger or receipt that is here alone is deleted. A listing says which receipts there are, which
objects to delete, and which of the files that no ledger names are there; it never says that a stage is finished.
Cost: one request for each stage of each dataset when a command begins, one listing for each stage that it runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

from corpus.pipeline.errors import CorpusError, DiskError, ObjectMissingError, StoreError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.store import claims
from corpus.pipeline.store.beside import AT_ONCE, FOLDERS, NAMED, SMALL, TIMINGS, Beside, files_in, is_same
from corpus.pipeline.store.claims import Holding, Timing
from corpus.pipeline.store.local import MemoryStore
from corpus.pipeline.store.objects import BLOCK_BYTES, ObjectInfo, Store, plain_key
from corpus.pipeline.workers import is_elsewhere, preparing
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.files import sha256_file, write_atomic
from corpus.pipeline.workspace.layout import OUTSIDE, RANKING, ROWS, SINGLE, Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, command_for, read_ledger
from corpus.pipeline.workspace.lock import LOCK, alone, is_free
from corpus.pipeline.workspace.remote import Named

_REFRESHING, _FETCHING = ".lock.refresh", ".lock.fetch"
_PER_DATASET = ("raw", "documents", *ROWS.values(), RANKING)
_REJECTED = "rejected/"
_MODELS = "models"
_SENT_FIRST = tuple(f"{folder}/" for folder in SMALL)


class OnNodes(Protocol):
    """What a process of a cluster calls before its pieces."""

    inputs: Sequence[Named]
    """What the pieces read, relative to the workspace."""

    def __call__(self) -> object:
        """Attach a working copy there, and bring the inputs."""


class WorkingCopy:
    """A folder of this machine, and the store that holds the workspace."""

    def __init__(
        self, store: Store, workspace: Workspace, *, prepare: Callable[[], object] | None = None,
        on_nodes: OnNodes | None = None, timing: Timing | None = None, progress: Progress = SILENT,
    ) -> None:  # fmt: skip
        self.store, self.workspace, self.root, self.shown = store, workspace, workspace.root, store.shown
        self._prepare = None if isinstance(store, MemoryStore) else prepare
        """Called in each worker process before its first piece; objects in memory are of one process alone."""
        self._on_nodes = on_nodes if self._prepare else None
        self._timing, self._progress = timing or Timing(), progress
        self._beside = Beside(store, self.root)
        self._holding: Holding | None = None
        self._is_alone = False
        self._whole: dict[Path, dict[str, str]] = {}
        """SHA-256 of objects as a ledger that this process deleted named them, or as it sent them."""

    # --- commands -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def holding(self, command: str, kind: str = "") -> Iterator[None]:
        """Claim the workspace for a writing command; bring the ledgers, and in the end send what none names."""
        with contextlib.ExitStack() as stack:
            say = self._progress.say
            self._holding = stack.enter_context(claims.held(self.store, command, kind, self._timing, say))
            if self._holding is None:
                say(f"{self.shown} cannot refuse a write where an object is: let one command alone write there")
            if self._prepare is not None:
                stack.enter_context(preparing(self._prepare, self._on_nodes))
            self._is_alone = not kind
            try:
                with alone(self.root / _REFRESHING):
                    self._refresh(strict=self._is_alone)
                yield
                self._send_beside()
            except CorpusError as error:
                if not isinstance(error, StoreError):
                    with contextlib.suppress(StoreError):
                        self._send_beside()
                raise
            finally:
                self._holding, self._is_alone = None, False
                self._beside.save()

    def refresh(self) -> None:
        """Bring what is small, for a command that only reads; not while another command writes in this copy."""
        with alone(self.root / _REFRESHING):
            if is_free(self.root / LOCK):
                self._refresh(strict=True)
                self._beside.save()

    def _send_beside(self) -> None:
        self._check_held()
        self._beside.send(self._beside.all_here())
        if self._is_alone:
            self._beside.delete_gone()

    def _check_held(self) -> None:
        if self._holding is not None:
            self._holding.check()

    # --- what is small ------------------------------------------------------------------------------------------------

    def _refresh(self, *, strict: bool) -> None:
        """Make ledgers and receipts like the storage's; beside other jobs, without `strict`, their receipts stay."""
        self._beside.bring_small()
        names = self.workspace.datasets()
        folders = [self.root / area / name for area in _PER_DATASET for name in names]
        folders += [self.root / area for area in sorted(SINGLE)]
        models = {key.split("/")[1] for key in self.store.infos(_MODELS) if key.endswith(f"/{LEDGER}")}
        there = {path.parent.name for path in (self.root / _MODELS).glob(f"*/{LEDGER}")}
        folders += [self.root / _MODELS / name for name in sorted(models | there)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(partial(self._refresh_stage, strict=strict), folders))
        if ledger := read_ledger(self.workspace.tokenizer):
            self.fetch(self.workspace.tokenizer, ledger.outputs)

    def _refresh_stage(self, folder: Path, *, strict: bool) -> None:
        key, path = self._key(folder / LEDGER), folder / LEDGER
        try:
            tag = self.store.info(key).tag
            if self._beside.tag(key) == tag:
                return
            data = self.store.read(key)
        except ObjectMissingError:
            self._withdraw(folder)
            if self._area(folder) not in {"raw", _MODELS}:
                self._refresh_receipts(folder, strict=strict)
            return
        if not path.is_file() or path.read_bytes() != data:
            self._replace(folder, data)
        self._beside.note(key, tag)

    def _replace(self, folder: Path, data: bytes) -> None:
        """Take a ledger of the storage, and delete the files that it does not name."""
        area = self._area(folder)
        (folder / LEDGER).unlink(missing_ok=True)
        shutil.rmtree(folder / receipts.FOLDER, ignore_errors=True)
        self._beside.bring_named(folder, area)
        write_atomic(folder / LEDGER, data)
        ledger = read_ledger(folder)
        if ledger is None or area == _MODELS:  # whose checkpoints stay
            if (modified := self.store.modified(self._key(folder / LEDGER))) is not None:
                os.utime(folder / LEDGER, (modified, modified))  # by which the newest model is found
            return
        named = {output.path for output in ledger.outputs}
        for path in files_in(folder):
            name = path.relative_to(folder).as_posix()
            if name not in named and not _is_beside(area, name):
                path.unlink()

    def _withdraw(self, folder: Path) -> None:
        """Delete a ledger that the storage does not have, and the files here that are not as it says."""
        ledger = read_ledger(folder)
        if ledger is None:
            return
        for output in ledger.outputs:
            self._is_here(folder, output)
        (folder / LEDGER).unlink(missing_ok=True)

    def _refresh_receipts(self, folder: Path, *, strict: bool) -> None:
        place = folder / receipts.FOLDER
        found = self.store.infos(self._key(place))
        here = {self._key(path): path for path in files_in(place)}
        for key, info in found.items():
            path = self.root / plain_key(key)
            if key not in here or here[key].stat().st_size != info.size:
                with contextlib.suppress(ObjectMissingError):  # another job has finished meanwhile
                    write_atomic(path, self.store.read(key))
                    if path.parent != place:
                        os.utime(path, (0, 0))  # so that an output which is here already is hashed
        for key in here.keys() - found.keys() if strict else ():
            here[key].unlink(missing_ok=True)

    # --- what is large ------------------------------------------------------------------------------------------------

    def fetch(self, folder: Path, outputs: Iterable[Named], progress: Progress = SILENT) -> None:
        """Bring outputs of a stage that are not here as its ledger says."""
        missing = [output for output in outputs if not self._is_here(folder, output)]
        if not missing:
            return
        size = sum(output.bytes for output in missing)
        self.root.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(self.root).free) < size:
            raise DiskError(
                f"{self.root}: {size_text(size)} are to be fetched, and {size_text(free)} are free",
                hint="Free some room, or name a folder on another disk with CORPUS_CACHE.",
            )
        place = "" if folder == self.root else f"/{self._key(folder)}"
        progress.say(f"fetching {len(missing):,} files, {size_text(size)}, from {self.shown}{place}")
        with progress.bar("fetching", size, "B"), ThreadPoolExecutor(AT_ONCE) as pool:
            for output, _ in zip(missing, pool.map(partial(self._fetch, folder), missing), strict=True):
                self.workspace.remember_digest(folder / output.path, output.sha256)
                progress.advance(output.bytes)

    def _fetch(self, folder: Path, output: Named) -> None:
        path = folder / output.path
        with alone(self.root / f"{_FETCHING}.{output.sha256[0]}"):  # of the processes that want a file one fetches it
            if path.is_file() and path.stat().st_size == output.bytes and sha256_file(path) == output.sha256:
                return
            try:
                self.store.local_copy(self._key(path), path, size=output.bytes, sha256=output.sha256)
            except StoreError as error:
                if isinstance(error, ObjectMissingError) or isinstance(error.__cause__, Exception):
                    again = command_for(folder)
                    error.hint = f"{error.hint} If it was deleted or damaged there: delete it, and run {again} again."
                raise

    def _is_here(self, folder: Path, output: Named) -> bool:
        """Whether an output is here as its ledger says; a file that is not is deleted."""
        path = folder / plain_key(output.path)
        if not path.is_file():
            return False
        if path.stat().st_size == output.bytes and self.workspace.digest(path) == output.sha256:
            return True
        path.unlink()
        return False

    def fetch_inputs(self, inputs: Iterable[Named], progress: Progress = SILENT) -> None:
        """Bring the inputs of a stage, and the outputs that ledgers and indexes of lists among them name.

        Nodes of a cluster bring the same before the stage's pieces, so what this command has written is sent first.
        """
        inside = [entry for entry in inputs if not entry.path.startswith(OUTSIDE)]
        if self._on_nodes is not None and is_elsewhere():
            self._on_nodes.inputs = inside
            self._beside.send(self.root / entry.path for entry in inside if entry.path.startswith(_SENT_FIRST))
        self.fetch(self.root, inside, progress)
        for entry in inside:
            path = self.root / entry.path
            if path.name == LEDGER and (ledger := read_ledger(path.parent)):
                used = [output for output in ledger.outputs if not output.path.startswith(_REJECTED)]
                self.fetch(path.parent, used, progress)
            elif path.parent.name == "lists" and (listed := self._ledger_of(path.parent.parent)) is not None:
                own = [output for output in listed if output.path.startswith(f"lists/{path.stem}/")]
                self.fetch(path.parent.parent, own, progress)

    def offer(self, paths: Iterable[Path]) -> None:
        """Send files that pieces on other nodes read, and that this command has written since the stage began."""
        if self._on_nodes is None or not is_elsewhere():
            return
        self._check_held()
        for path in paths:
            entry = self.workspace.file_digest(path)
            self.store.upload(entry.path, path, entry.sha256)
            self._on_nodes.inputs = [*self._on_nodes.inputs, entry]

    def _ledger_of(self, folder: Path) -> list[FileDigest] | None:
        """The outputs of a finished stage, whose ledger is brought where it is not here."""
        if not (folder / LEDGER).is_file():
            try:
                write_atomic(folder / LEDGER, self.store.read(self._key(folder / LEDGER)))
            except ObjectMissingError:
                return None
        ledger = read_ledger(folder)
        return list(ledger.outputs) if ledger else None

    def fetch_beside(self, folder: Path, progress: Progress = SILENT) -> None:
        """Bring the folders that spare a stage work."""
        names = FOLDERS.get(self._area(folder), ())
        if names:
            progress.say(f"looking for {' and '.join(names)} of {self.shown}/{self._key(folder)}")
            self._beside.bring_folders(folder / name for name in names)

    def changes(
        self, folder: Path, outputs: Iterable[Named], digest: Callable[[Path], str] | None
    ) -> Iterator[tuple[str, str]]:
        """Outputs that the storage does not have, by their sizes; a copy here that is damaged is deleted."""
        found = self.store.infos(self._key(folder))
        for output in outputs:
            there = found.get(self._key(folder / output.path))
            if there is None:
                yield output.path, "is missing"
            elif there.size != output.bytes:
                yield output.path, "has another size than its ledger says"
            elif digest is not None and self._is_alone:
                self._is_here(folder, output)

    def check(self, folder: Path, outputs: Iterable[Named], progress: Progress = SILENT) -> None:
        """Compare the objects of a stage with its ledger, reading those that are not fetched for it."""
        here = [output for output in outputs if self._is_here(folder, output)]
        self.fetch(folder, outputs, progress)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(partial(self._check, folder), here))

    def _check(self, folder: Path, output: Named) -> None:
        key, digest = self._key(folder / output.path), hashlib.sha256()
        if self.store.info(key).size == output.bytes:
            for start in range(0, output.bytes, BLOCK_BYTES):
                digest.update(*self.store.read_ranges(key, [(start, min(start + BLOCK_BYTES, output.bytes))]))
            if digest.hexdigest() == output.sha256:
                return
        raise StoreError(
            f"{self.shown}/{key} has other bytes than its ledger says",
            hint=f"Delete it there, and run {command_for(folder)} again.",
        )

    # --- to the storage -----------------------------------------------------------------------------------------------

    def push_piece(
        self, folder: Path, outputs: Iterable[Named], receipt: str, data: bytes, beside: Iterable[Path] = ()
    ) -> None:
        """Send the outputs of a piece, then its receipt."""
        self._check_held()
        for path in beside:
            self.store.upload(self._key(path), path)
        for output in outputs:
            self.store.upload(self._key(folder / output.path), folder / output.path, output.sha256)
        self.store.write(self._key(folder / receipt), data)

    def push_ledger(self, folder: Path, outputs: Iterable[Named], ledger: bytes) -> None:
        """Send the outputs of a stage that no receipt names, then its ledger."""
        self._check_held()
        outputs = list(outputs)
        known = self._sent(folder)
        rest = [output for output in outputs if known.get(output.path) != output.sha256]
        found = self.store.infos(self._key(folder)) if rest else {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(partial(self._push, folder, found), rest))
        area = self._area(folder)
        paths = [path for name in FOLDERS.get(area, ()) for path in files_in(folder / name)]
        self._beside.send([*paths, *self._beside.of_finished(folder, area, {output.path for output in outputs})])
        self._check_held()
        self.store.write(self._key(folder / LEDGER), ledger)

    def _push(self, folder: Path, found: Mapping[str, ObjectInfo], output: Named) -> None:
        """Send an output, unless it is there, as far as a tag of S3 tells: an earlier command may have sent it."""
        path, key = folder / output.path, self._key(folder / output.path)
        if key not in found or not is_same(path, found[key]):
            self.store.upload(key, path, output.sha256)

    def _sent(self, folder: Path) -> Mapping[str, str]:
        """SHA-256 of the objects of a stage that are known to be there, by path."""
        known, differ = dict(self._whole.get(folder, {})), set[str]()
        told: dict[str, str] = {}
        there = self.store.infos(self._key(folder / receipts.FOLDER))
        for found in receipts.read_all(folder):
            is_there = self._key(folder / found.receipt.name) in there  # else a process has written it that sends none
            for output in found.receipt.outputs if is_there else ():
                if told.setdefault(output.path, output.sha256) != output.sha256:
                    differ.add(output.path)
        known |= told
        return {path: sha256 for path, sha256 in known.items() if path not in differ}

    def send(self, folder: Path) -> None:
        """Send the files of a folder that no ledger names."""
        self._beside.send(files_in(folder))
        self._beside.save()

    def delete_ledger(self, folder: Path) -> None:
        """Delete the ledger of a stage."""
        self._check_held()
        if ledger := read_ledger(folder):
            self._whole[folder] = {output.path: output.sha256 for output in ledger.outputs}
        self.store.delete(self._key(folder / LEDGER))

    def sweep(self, folder: Path) -> None:
        """Delete the receipts of a finished stage, and objects that its ledger does not name."""
        ledger, area = read_ledger(folder), self._area(folder)
        if ledger is None or not self._is_alone or area == _MODELS:
            return
        named = {LEDGER, *(output.path for output in ledger.outputs)}
        start = len(self._key(folder)) + 1
        found = [key for key in self.store.infos(self._key(folder)) if key[start:] not in named]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.store.delete, [key for key in found if not _is_beside(area, key[start:])]))

    # --- places -------------------------------------------------------------------------------------------------------

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _area(self, folder: Path) -> str:
        return folder.relative_to(self.root).parts[0]


def _is_beside(area: str, name: str) -> bool:
    """Whether a file of a stage's folder is one that no ledger names, and stays."""
    return name in {LEDGER, TIMINGS, *NAMED.get(area, ())} or name.partition("/")[0] in FOLDERS.get(area, ())
