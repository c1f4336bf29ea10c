"""`corpus pack --form ranking` as one call.

In: a workspace and keyword arguments. Out: `ranking/<dataset>/` for each dataset, and the tokenizer if there was none.
Invariants: as `corpus.pipeline.workflows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.manifest import BUILT_IN
from corpus.pipeline.pack import ranking_stage
from corpus.pipeline.pack.ranking_stage import RankingConfig
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.storage import removals
from corpus.pipeline.tokenizer import stage as tokenizer_stage
from corpus.pipeline.tokenizer.stage import VOCAB_SIZE, TokenizerConfig
from corpus.pipeline.workers import kept
from corpus.pipeline.workflows import PackResult, UsageError
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger


class RankingSettings(TypedDict, total=False):
    """How documents become rankings: the fields of `RankingConfig` with the same names."""

    seq_length: int
    min_ratio: float
    max_answers: int
    max_pairs: int
    any_age: bool
    workers: int


def pack(
    workspace: Workspace, *, datasets: Sequence[str] = (), exclude: Iterable[Path] = (),
    vocab_size: int = VOCAB_SIZE, progress: Progress = SILENT, **settings: Unpack[RankingSettings],
) -> PackResult:  # fmt: skip
    """Make rankings of documents; trains the tokenizer first where the workspace has no tokenizer.

    Without `datasets` it takes all whose manifests say which of two answers is better. `exclude` are files of document
    ids to add to the workspace's removal list.

    Raises:
        UsageError: a value is out of range.
        WorkspaceError: there are no documents, or none that can be ranked.

    """
    try:
        config, tokenizer = RankingConfig(dataset=BUILT_IN, **settings), TokenizerConfig(vocab_size=vocab_size)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with workspace.writing("pack"):
        removals.add(workspace, exclude)
        names = names_to_rank(workspace, datasets)
        trained = None
        if read_ledger(workspace.tokenizer) is None:
            progress.say("there is no tokenizer yet: training one first, as `corpus tokenizer` does")
            trained = tokenizer_stage.run(tokenizer, workspace, progress=progress)
        with kept():
            made = [ranking_stage.run(replace(config, dataset=name), workspace, progress=progress) for name in names]
    return PackResult(tokenizer=trained, rows=tuple(made))


def names_to_rank(workspace: Workspace, datasets: Sequence[str]) -> list[str]:
    """The datasets that are named; when none is, those whose manifests say which of two answers is better.

    Raises:
        WorkspaceError: none of the documents can be ranked.

    """
    names = list(dict.fromkeys(datasets)) or [
        name for name in workspace.finished("documents") if ranking_stage.can_rank(workspace, name)
    ]
    if not names:
        raise WorkspaceError(
            f"{workspace.shown} holds no documents that can be ranked",
            hint="Run `corpus ingest --dataset webtext2019zh`, or with a --manifest of the form ranking, first.",
        )
    return names
