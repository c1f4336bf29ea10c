"""The documents of one split that a model is measured on, streamed.

In: the documents of a workspace, and the lists of dedup, decontaminate and quality. Out: for each dataset their number
and their texts.
Invariants: texts come in the order of shards and lines; their number agrees with the ledger and the lists, or a
BooksError is raised; a limit takes documents spread evenly over the split, the same ones each time.
Cost: one batch of documents in memory; shards without the split are not opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from corpus.pipeline.errors import BooksError, WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import part_metadata, parts
from corpus.pipeline.storage.selection import Selection
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.evaluation.config import EvaluateConfig
from corpus.train.evaluation.metrics import spread


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """Documents of one dataset."""

    workspace: Workspace
    dataset: str
    split: str
    used: int
    """Documents of the split that no list leaves out."""
    limit: int
    """Most documents wanted; 0 for all."""
    chosen: Selection
    """What is left out."""

    @property
    def count(self) -> int:
        """Documents that `read` gives."""
        return min(self.used, self.limit) if self.limit else self.used

    def read(self) -> Iterator[str]:
        """The texts, one after another.

        Raises:
            DamageError: a shard cannot be read.
            BooksError: there are not as many documents as the ledger says.

        """
        wanted = spread(self.used, self.limit)
        seen = given = 0
        for texts in self._batches():
            end = seen + len(texts)
            until = int(np.searchsorted(wanted, end))
            yield from (texts[number - seen] for number in wanted[given:until])
            seen, given = end, until
        if seen != self.used:
            raise BooksError(
                f"{self.dataset}, {self.split}: {self.used:,} documents by the ledger, {seen:,} were read",
                hint="Run `corpus verify`.",
            )

    def _batches(self) -> Iterator[list[str]]:
        for path in parts(self.workspace.documents(self.dataset)):
            metadata = part_metadata(path)
            if metadata and not metadata[1]["characters"].get(self.split, 0):
                continue
            for _, _, batch in selection.read_selected(path, ["text", "split"], self.chosen):
                inside = np.asarray(batch["split"].to_numpy(zero_copy_only=False) == self.split)
                yield batch["text"].take(np.flatnonzero(inside)).to_pylist()


def texts_of(config: EvaluateConfig, workspace: Workspace, progress: Progress) -> list[Texts]:
    """The documents asked for. A dataset without the split is an error where `--dataset` named it, else a remark.

    Raises:
        WorkspaceError: there are no documents, or a list of documents left out was made from other documents.
        DamageError: a documents shard differs from its ledger.

    """
    found = []
    for name in selection.datasets_of(workspace, config.datasets):
        splits = selection.documents_of(workspace, name, progress).counts["splits"]
        chosen = selection.load(workspace, name, removals=True)
        used = splits.get(config.split, 0) - chosen.documents[config.split]
        if used > 0:
            found.append(
                Texts(
                    workspace=workspace, dataset=name, split=config.split, used=used, limit=config.documents,
                    chosen=chosen,
                )
            )  # fmt: skip
        elif config.datasets:
            raise WorkspaceError(f"{name} has no {config.split} documents", hint=_others(splits))
        else:
            progress.say(f"{name} has no {config.split} documents")
    if not found:
        raise WorkspaceError(
            f"no dataset in {workspace.root} has {config.split} documents",
            hint="Name another split with --split, or run `corpus ingest` for a dataset that has one.",
        )
    return found


def _others(splits: dict[str, int]) -> str:
    there = [name for name, count in splits.items() if count]
    return f"Give --split {' or '.join(there)}." if there else "`corpus trace --rejected too_short` shows why."
