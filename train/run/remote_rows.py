"""Packed rows of a workspace in a bucket, as a workspace on this machine's disk.

In: `--rows`, a URL below which `packed/<dataset>/` (or `chat/<dataset>/`) and `tokenizer/` lie as in a workspace.
Out: a workspace of links to files in the cache, which were checked against the ledgers at the URL.
Invariants: ledgers are copied byte by byte, so that a run's identity, order and curve are those of local rows; of the
processes of a machine one fetches.
Cost: with the shuffle `full`, all rows, once, before the first step: the order of rows is one permutation of all rows
of an epoch, and the mixture counts the tokens of all of them. With the shuffle `block`, the first 4 KiB of each shard
of training rows and all other files; then the shards in the order in which the run needs them, ahead of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from corpus.pipeline.errors import ObjectMissingError, StoreError, WorkspaceError
from corpus.pipeline.humanize import size_text
from corpus.pipeline.manifest import NAME
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage.row_shards import counts_of
from corpus.pipeline.store import (
    Cache,
    CachedFile,
    FetchAhead,
    FileNeed,
    Reader,
    Store,
    View,
    open_cache,
    open_store,
)
from corpus.pipeline.workspace.files import write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger
from corpus.pipeline.workspace.lock import alone
from corpus.train.config import TrainConfig
from corpus.train.data.block_order import BlockOrder, most_at_once
from corpus.train.run.packed import AREAS

_TOKENIZER = "tokenizer"
_COUNTS = ".counts.json"
_READERS = 16
_PREFETCHED = 2
"""Passes that torch has each process make ahead."""


class RemoteRows(Workspace):
    """A workspace whose files stay in the cache while it is referred to.

    `later` are files that are fetched while the run goes on, `files` those that are there.
    """

    def __init__(
        self, store: Store, cache: Cache, view: View, files: Sequence[CachedFile], later: Sequence[CachedFile]
    ) -> None:
        super().__init__(view.root)
        self.store, self.cache, self.view = store, cache, view
        self.files, self.later = files, {file.name: file for file in later}
        for file in files:
            self.remember_digest(self.root / file.name, file.sha256)

    def counts(self, progress: Progress = SILENT) -> Mapping[str, Mapping[str, Any] | None]:
        """The counts of the files to be fetched later, by name, read from their first bytes once a machine."""
        path = self.root / _COUNTS
        with alone(self.root / f"{_COUNTS}.lock"):
            if not path.exists():
                progress.say(f"reading the counts of {len(self.later):,} shards at {self.store.shown}")
                with progress.bar("reading", len(self.later), "shards"), ThreadPoolExecutor(_READERS) as pool:
                    found = {}
                    for name, counts in zip(self.later, pool.map(self._count, self.later.values()), strict=True):
                        found[name] = counts
                        progress.advance(1)
                write_atomic(path, json.dumps(found).encode())
            read: Mapping[str, Mapping[str, Any] | None] = json.loads(path.read_bytes())
        return read

    def _count(self, file: CachedFile) -> Mapping[str, Any] | None:
        return counts_of(lambda size: self.store.read_ranges(file.name, [(0, min(size, file.size))])[0])

    def follow(self, order: BlockOrder, shards: Sequence[str], workers: int) -> BlockFetch:
        """What fetches these shards, numbered as the order numbers them, ahead of a run.

        Raises:
            StoreError: the bound of the cache is too small.

        """
        files = [self.later[name] for name in shards]
        lag = -(-_PREFETCHED * workers // order.accumulation)
        kept = _size(self.files)
        if (most := self.cache.most_bytes) is not None:
            rows = (lag + 1) * order.steps.batch_size
            need = kept + most_at_once(order.needs(0), [file.size for file in files], rows)
            if need > most:
                raise StoreError(
                    f"--cache-bytes {most}: two blocks of {order.block_shards} shards of each dataset, and the files "
                    f"that stay, have {need:,} bytes",
                    hint=f"Give --cache-bytes {need} or more, or a smaller --shuffle-block, which is another run.",
                )
        return BlockFetch(self, order, files, lag=lag, kept=kept)


class BlockFetch:
    """Fetches shards in the order in which a run needs them."""

    def __init__(
        self, rows: RemoteRows, order: BlockOrder, files: Sequence[CachedFile], *, lag: int, kept: int
    ) -> None:
        self._rows, self._order, self._files, self._lag, self._kept = rows, order, files, lag, kept

    @contextlib.contextmanager
    def reading(self, first: int, progress: Progress = SILENT) -> Iterator[None]:
        """In it the shards that a run needs from this step on are there, or come."""
        order, rows = self._order, self._rows
        begin = order.steps.begin(first)
        needs = (FileNeed(n.begin, n.end, tuple(self._files[shard] for shard in n.shards)) for n in order.needs(begin))
        bound = f", at most {size_text(rows.cache.most_bytes)} there" if rows.cache.most_bytes else ""
        progress.say(f"fetching shards from {rows.store.shown} into {rows.cache.folder} ahead of the run{bound}")
        reader = Reader(rows.view, begin)
        ahead = FetchAhead(rows.cache, rows.view, rows.store, needs=needs, files=self._files, kept=self._kept)
        order.before_step = lambda step: reader.at(order.steps.begin(max(first, step - self._lag)))
        try:
            yield
        finally:
            ahead.close()
            reader.close()


def fetched(config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> RemoteRows:
    """The rows and the tokenizer at `config.rows`, on this machine's disk; `workspace` knows the names of datasets.

    With the shuffle `block` the shards of training rows come later.

    Raises:
        StoreError: the URL cannot be read, a file there is not what its ledger says, or `cache_bytes` is too small.
        WorkspaceError: no dataset is packed there, or a ledger cannot be read.
        DiskError: the cache cannot be written.

    """
    store = open_store(config.rows)
    area = AREAS[config.objective]
    names = sorted(config.mixture) or [name for name in sorted(workspace.datasets()) if _is_packed(store, area, name)]
    for name in names:
        if not NAME.fullmatch(name):  # or it could be a path
            raise StoreError(f"--dataset {name} is no name of a dataset")
    if not names:
        raise WorkspaceError(
            f"{store.shown} holds no {area} rows of a known dataset",
            hint=f"--rows names what holds {area}/DATASET/ledger.json; name datasets of your own with --dataset.",
        )
    folders = [_TOKENIZER, *(f"{area}/{name}" for name in names)]
    cache = open_cache(config.cache, config.cache_bytes)
    documents = {f"{folder}/{LEDGER}": _ledger(store, folder) for folder in folders}
    if config.shuffle == "block":
        documents[".run"] = _run(config, workspace)
    view = cache.open_view(documents, progress)
    files = [file for folder in folders for file in _files(store, view, folder)]
    later = [file for file in files if config.shuffle == "block" and _is_later(file.name)]
    now = [file for file in files if not later or not _is_later(file.name)]
    if later and (most := config.cache_bytes) is not None and (size := _size(now)) > most:
        raise StoreError(
            f"--cache-bytes {most}: tokenizer and validation rows alone have {size:,} bytes",
            hint=f"Give --cache-bytes {2 * size} or more; what two blocks of shards take is said then.",
        )
    cache.fetch(view, store, now, progress)
    return RemoteRows(store, cache, view, now, later)


def _size(files: Sequence[CachedFile]) -> int:
    """Bytes of files in the cache, which has equal files once."""
    return sum(file.size for file in {file.kept_as: file for file in files}.values())


def _is_later(name: str) -> bool:
    return "/train/" in name and name.endswith(".arrow")


def _run(config: TrainConfig, workspace: Workspace) -> bytes:
    """What tells a run whose processes read the same shards at the same time from others."""
    return hashlib.sha256(f"{workspace.root.absolute()}\n{config.run}\n{config}".encode()).hexdigest().encode()


def _is_packed(store: Store, area: str, name: str) -> bool:
    try:
        store.info(f"{area}/{name}/{LEDGER}")
    except ObjectMissingError:
        return False
    return True


def _ledger(store: Store, folder: str) -> bytes:
    try:
        return store.read(f"{folder}/{LEDGER}")
    except ObjectMissingError as error:
        hint = f"--rows must name what holds {folder}/ as a workspace does: copy that folder there."
        raise ObjectMissingError(error.message, hint=hint) from error


def _files(store: Store, view: View, folder: str) -> list[CachedFile]:
    """The files that the ledger of a folder lists."""
    try:
        ledger = read_ledger(view.root / folder)
    except WorkspaceError as error:
        what = "is no ledger that this version of corpus-zh can read"
        raise StoreError(f"{store.shown}/{folder}/{LEDGER} {what}", hint="Copy the workspace there again.") from error
    outputs = ledger.outputs if ledger else ()
    return [CachedFile(f"{folder}/{output.path}", output.bytes, output.sha256) for output in outputs]
