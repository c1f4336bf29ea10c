"""A job's share of a stage as one call: what the commands do with `--shard`, for Python programs.

In: a workspace, a share, and keyword arguments or the configuration of a stage over all datasets. Out: files and
receipts of the share's pieces, and a report, for each dataset where the stage works on one.
Invariants: jobs of one stage with equal settings run beside each other, and beside no other writer; a share makes
neither ledgers nor lists, and removes nothing: the same call without a share does that.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Unpack

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.manifest import BUILT_IN
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.workers import kept
from corpus.pipeline.workflows import CleaningSettings, RowSettings, UsageError, names_to_pack
from corpus.pipeline.workflows.rankings import RankingSettings, names_to_rank
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import fingerprint, read_ledger
from corpus.pipeline.workspace.share import Share, ShareReport

if TYPE_CHECKING:
    from corpus.pipeline.decontaminate.config import DecontaminateConfig
    from corpus.pipeline.dedup.stage import DedupConfig
    from corpus.pipeline.export.config import ExportConfig
    from corpus.pipeline.quality.config import QualityConfig


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

    with _checking():
        config = IngestConfig(dataset=BUILT_IN, signatures=dedup, **settings)
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

    with _checking():
        config = PackConfig(dataset=BUILT_IN, **settings)
    with workspace.sharing(f"pack --shard {share}", _kind(STAGE, VERSION, config)), kept():
        names = names_to_pack(workspace, datasets, config.form, progress)
        _needs_tokenizer(workspace)
        return tuple(rows.run(replace(config, dataset=name), workspace, share, progress=progress) for name in names)


def rankings(
    workspace: Workspace, share: Share, *, datasets: Sequence[str] = (), progress: Progress = SILENT,
    **settings: Unpack[RankingSettings],
) -> tuple[ShareReport, ...]:  # fmt: skip
    """Pack a share of the rankings of datasets, of all that can be ranked when none is named.

    Raises:
        UsageError: a setting is out of range.
        WorkspaceError: there are no documents that can be ranked, or no tokenizer.
        BusyError: another command writes in the workspace.

    """
    from corpus.pipeline.pack import ranking_stage as stage

    with _checking():
        config = stage.RankingConfig(dataset=BUILT_IN, **settings)
    with workspace.sharing(f"pack --shard {share}", _kind(stage.STAGE, stage.VERSION, config)), kept():
        names = names_to_rank(workspace, datasets)
        _needs_tokenizer(workspace)
        return tuple(
            stage.run_share(replace(config, dataset=name), workspace, share, progress=progress) for name in names
        )


def dedup(workspace: Workspace, share: Share, config: DedupConfig, *, progress: Progress = SILENT) -> ShareReport:
    """Sign a share of the documents that ingest has not signed. Errors as in `ingest`."""
    from corpus.pipeline.dedup import stage

    with workspace.sharing(f"dedup --shard {share}", _kind(stage.STAGE, stage.VERSION, config)), kept():
        return stage.run_share(config, workspace, share, progress=progress)


def decontaminate(
    workspace: Workspace, share: Share, config: DecontaminateConfig, *, progress: Progress = SILENT
) -> ShareReport:
    """Search a share of the documents for evaluation items; all jobs take the same files. Errors as in `ingest`."""
    from corpus.pipeline.decontaminate import stage

    if config.forget:
        raise UsageError(
            "--forget must not stand with --shard: run `corpus decontaminate --forget NAME` before the jobs"
        )
    with workspace.sharing(f"decontaminate --shard {share}", _kind(stage.STAGE, stage.VERSION, config)), kept():
        return stage.run_share(config, workspace, share, progress=progress)


def quality(workspace: Workspace, share: Share, config: QualityConfig, *, progress: Progress = SILENT) -> ShareReport:
    """Score a share of the documents with a model that is given. Errors as in `ingest`."""
    from corpus.pipeline.quality import stage

    if config.positive:
        raise UsageError("--positive must not stand with --shard: train once without it, then give jobs the --model")
    if config.model is None:
        raise UsageError("--shard needs --model FILE: training takes a sample of all documents")
    with workspace.sharing(f"quality --shard {share}", _kind(stage.STAGE, stage.VERSION, config)), kept():
        return stage.run_share(config, workspace, share, progress=progress)


def export(workspace: Workspace, share: Share, config: ExportConfig, *, progress: Progress = SILENT) -> ShareReport:
    """Write a share of the pieces of an export into its folder. Errors as in `ingest`, and those of the stage."""
    from corpus.pipeline.export import stage

    with workspace.sharing(f"export --shard {share}", _kind(stage.STAGE, stage.VERSION, config)), kept():
        return stage.run_share(config, workspace, share, progress=progress)


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    """Turn the ValueErrors of a configuration into UsageErrors."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def _needs_tokenizer(workspace: Workspace) -> None:
    if read_ledger(workspace.tokenizer) is None:
        raise WorkspaceError("there is no tokenizer", hint="Run `corpus tokenizer` once, before the jobs.")


def _kind(stage: str, version: int, config: Any) -> str:
    """What jobs have in common that write beside each other; their datasets and workers may differ."""
    values = {name: value for name, value in asdict(config).items() if name not in {"dataset", "workers"}}
    settings = json.loads(json.dumps(values, default=str))  # paths by their names
    return f"{stage} {fingerprint(stage, version, settings, [])}"
