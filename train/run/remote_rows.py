"""Packed rows of a workspace in a bucket, as a workspace on this machine's disk.

In: `--rows`, a URL below which `packed/<dataset>/` (or `chat/<dataset>/`) and `tokenizer/` lie as in a workspace.
Out: a workspace of links to files in the cache, which were checked against the ledgers at the URL.
Invariants: ledgers are copied byte by byte, so that a run's identity, order and curve are those of local rows; each
file is fetched once a machine, whatever the processes.
Cost: all rows, once. The order of rows is one permutation of all rows of an epoch, and the mixture counts the tokens of
all of them, so a run needs every file before its first step: files are fetched in the order of the ledgers.
"""

from __future__ import annotations

from collections.abc import Sequence

from corpus.pipeline.errors import ObjectMissingError, StoreError, WorkspaceError
from corpus.pipeline.manifest import NAME
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.store import CachedFile, Store, View, open_cache, open_store
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, read_ledger
from corpus.train.config import TrainConfig
from corpus.train.run.packed import AREAS

_TOKENIZER = "tokenizer"


class RemoteRows(Workspace):
    """A workspace whose files stay in the cache while it is referred to."""

    def __init__(self, view: View, files: Sequence[CachedFile]) -> None:
        super().__init__(view.root)
        self.view = view
        for file in files:
            self.remember_digest(self.root / file.name, file.sha256)


def fetched(config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> RemoteRows:
    """The rows and the tokenizer at `config.rows`, on this machine's disk; `workspace` knows the names of datasets.

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
    view = cache.open_view({f"{folder}/{LEDGER}": _ledger(store, folder) for folder in folders}, progress)
    files = [file for folder in folders for file in _files(store, view, folder)]
    cache.fetch(view, store, files, progress)
    return RemoteRows(view, files)


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
