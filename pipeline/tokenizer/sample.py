"""The documents a tokenizer is trained on: a bounded sample, balanced over the datasets.

Invariant: the sample depends on the documents alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import group_count, part_number, parts, reading_part
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger

_STRATA = 64
_BATCH_ROWS = 256
_BATCH_CHARACTERS = 1 << 21
_MEASURED_CHARACTERS = 200_000


class Sample:
    """A sample of training documents: read again for every pass, never all in memory."""

    def __init__(
        self, workspace: Workspace, quotas: Mapping[str, int], chosen: Mapping[str, selection.Selection]
    ) -> None:
        self.workspace = workspace
        self.chosen = chosen
        self.quotas = quotas
        self.quota = sum(quotas.values())
        self.characters: dict[str, int] = {}
        """Characters read of each dataset."""
        self.measured: dict[str, list[str]] = {}
        """An evenly spread part of the sample, to measure the tokenizer on."""

    def batches(self, progress: Progress) -> Iterator[str]:
        """The documents, joined into texts of about two million characters."""
        for name, quota in self.quotas.items():
            batch: list[str] = []
            size = seen = kept = 0
            measured: list[str] = []
            for text in _sample(self.workspace, name, quota, self.chosen[name]):
                if kept * quota <= seen * min(quota, _MEASURED_CHARACTERS):
                    measured.append(text)
                    kept += len(text)
                batch.append(text)
                size += len(text)
                seen += len(text)
                if size > _BATCH_CHARACTERS:
                    yield "\n".join(batch)
                    progress.advance(size)
                    batch, size = [], 0
            if batch:
                yield "\n".join(batch)
                progress.advance(size)
            self.characters[name], self.measured[name] = seen, measured


def share_quota(workspace: Workspace, chosen: Mapping[str, selection.Selection], characters: int) -> dict[str, int]:
    """Characters from each dataset: equal shares, with the shortfall of a small one shared by the others."""
    ledgers = {name: read_ledger(workspace.documents(name)) for name in chosen}
    sizes = {
        name: ledger.counts["characters"].get("train", 0) - chosen[name].characters["train"] if ledger else 0
        for name, ledger in ledgers.items()
    }
    quotas: dict[str, int] = {}
    left = characters
    for rank, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        quotas[name] = min(sizes[name], left // (len(sizes) - rank))
        left -= quotas[name]
    if not any(quotas.values()):
        why = [f"{name}: {_why_none(ledger.counts)}" for name, ledger in ledgers.items() if ledger]
        raise WorkspaceError(
            f"there are no training documents ({'; '.join(why)})",
            hint="`corpus inspect --show dropped` and `--show left-out` say why; ingest the dataset with other flags.",
        )
    return dict(sorted(quotas.items()))


def _why_none(counts: Mapping[str, Any]) -> str:
    """Why a dataset has no document to train on."""
    if not counts["records"]:
        return "its source has no records"
    if not counts["documents"]:
        return f"all {counts['records']:,} records were dropped"
    trained = counts["splits"].get("train", 0)
    return f"all {trained:,} are left out" if trained else "its documents are for validation and test"


def _sample(workspace: Workspace, name: str, quota: int, chosen: selection.Selection) -> Iterator[str]:
    """About `quota` characters of training documents, from row groups spread evenly over the dataset."""
    groups = [(path, group) for path in parts(workspace.documents(name)) for group in range(group_count(path))]
    strata = groups if len(groups) <= _STRATA else [groups[index * len(groups) // _STRATA] for index in range(_STRATA)]
    taken = [0] * len(strata)
    for _ in range(2):  # the second round makes up for small groups in the first
        for rank, (path, group) in enumerate(strata):
            share = -(-quota // (len(strata) - rank))
            if share <= 0:
                continue
            for text in itertools.islice(_training_texts(path, group, chosen), taken[rank], None):
                yield text
                taken[rank] += 1
                share -= len(text)
                quota -= len(text)
                if share <= 0:
                    break


def _training_texts(path: Path, group: int, chosen: selection.Selection) -> Iterator[str]:
    """The selected training documents of a row group, read lazily."""
    out = chosen.shard(part_number(path))
    with reading_part(path), pq.ParquetFile(path) as file:
        line = sum(file.metadata.row_group(before).num_rows for before in range(group))
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=["text", "split"]):
            _, used = selection.select(batch, line, out)
            for text, split in zip(used["text"].to_pylist(), used["split"].to_pylist(), strict=True):
                if split == "train":
                    yield text
            line += batch.num_rows
