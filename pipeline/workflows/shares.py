"""A job's share of a stage as one call: what `corpus ingest` and `corpus pack` do with `--shard`, for Python programs.

In: a workspace, a share and keyword arguments. Out: files and receipts of the share's pieces, and a report for each
dataset.
Invariants: jobs of one stage with equal settings run beside each other, and beside no other writer; a share makes
neither ledgers nor lists, and removes nothing: the same call without a share does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Unpack

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.manifest import BUILT_IN
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workers import kept
from corpus.pipeline.workflows import CleaningSettings, RowSettings, UsageError, names_to_pack
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import fingerprint, read_ledger
from corpus.pipeline.workspace.share import Share, ShareReport

if TYPE_CHECKING:
    from corpus.pipeline.documents.stage import IngestConfig
    from corpus.pipeline.pack.stage import PackConfig


def ingest(
    workspace: Workspace, share: Share, *, datasets: Sequence[str] = (), dedup: bool = True,
    progress: Progress = SILENT, **settings: Unpack[CleaningSettings],
) -> tuple[ShareReport, ...]:  # fmt: skip
    """Turn a share of the records of datasets, of all that are downloaded when none is named, into documents.

    With `dedup` the documents are signed, so that `corpus dedup` need not read them again.

    Raises:
        UsageError: a setting is out of range.
        WorkspaceError: a dataset is not downloaded.
        BusyError: another command writes in the workspace.

    """
    from corpus.pipeline.documents import share as documents
    from corpus.pipeline.documents.stage import STAGE, VERSION, IngestConfig

    try:
        config = IngestConfig(dataset=BUILT_IN, signatures=dedup, **settings)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with workspace.sharing(f"ingest --shard {share}", _kind(STAGE, VERSION, config)), kept():
        names = list(dict.fromkeys(datasets)) or workspace.finished("raw")
        if not names:
            raise WorkspaceError(
                f"{workspace.shown} holds nothing downloaded", hint="Run `corpus download` once, before the jobs."
            )
        return tuple(
            documents.run(replace(config, dataset=name), workspace, share, progress=progress) for name in names
        )


def pack(
    workspace: Workspace, share: Share, *, datasets: Sequence[str] = (), progress: Progress = SILENT,
    **settings: Unpack[RowSettings],
) -> tuple[ShareReport, ...]:  # fmt: skip
    """Pack a share of the documents of datasets, of all that have documents when none is named.

    Raises:
        UsageError: a setting is out of range.
        WorkspaceError: there are no documents, no tokenizer, or no questions for the chat form.
        BusyError: another command writes in the workspace.

    """
    from corpus.pipeline.pack import share as rows
    from corpus.pipeline.pack.stage import STAGE, VERSION, PackConfig

    try:
        config = PackConfig(dataset=BUILT_IN, **settings)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with workspace.sharing(f"pack --shard {share}", _kind(STAGE, VERSION, config)), kept():
        names = names_to_pack(workspace, datasets, config.form, progress)
        if read_ledger(workspace.tokenizer) is None:
            raise WorkspaceError("there is no tokenizer", hint="Run `corpus tokenizer` once, before the jobs.")
        return tuple(rows.run(replace(config, dataset=name), workspace, share, progress=progress) for name in names)


def _kind(stage: str, version: int, config: IngestConfig | PackConfig) -> str:
    """What jobs have in common that write beside each other; their datasets and workers may differ."""
    settings = {name: value for name, value in asdict(config).items() if name not in {"dataset", "workers"}}
    return f"{stage} {fingerprint(stage, version, settings, [])}"
