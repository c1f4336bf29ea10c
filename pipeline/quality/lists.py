"""What the score leaves out: the list of each dataset, counts, and the books.

In: scores of documents shards. Out: the lists of each dataset (`storage.removal_lists`), and counts for the ledger.
Invariants: only documents of the train split are left out, so figures on validation and test stay comparable; nothing
of a positive dataset is. Documents = left out before + kept + of low quality, in each dataset.
Cost: the scores of one shard in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.errors import BooksError
from corpus.pipeline.quality.sample import ScoredShard
from corpus.pipeline.quality.scores import read_scores
from corpus.pipeline.quality.scoring import stays
from corpus.pipeline.storage import removal_lists
from corpus.pipeline.storage.document_shards import REMOVED_SCHEMA, part_number, reading_part
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger

REASON = "low_quality"
BINS = 20
"""Bins of the histogram of scores."""
LENGTHS = (100, 200, 500, 1_000, 2_000)
"""Upper limits of the classes of length, in characters; the last class has none."""
FEW = 0.05
"""A dataset of which less stays gets a note."""


@dataclass(slots=True)
class ScoreCounts:
    """The counts of a dataset."""

    is_positive: bool
    documents: Counter[str] = field(default_factory=Counter)
    """Scored documents, by split."""
    low_quality: Counter[str] = field(default_factory=Counter)
    characters: int = 0
    """Of the documents that could be left out: those of the train split."""
    low_quality_characters: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    lengths: np.ndarray = field(default_factory=lambda: np.zeros((len(LENGTHS) + 1, 2), np.int64))
    """[classes, 2] documents of the train split by length, and those of low quality among them."""
    moments: np.ndarray = field(default_factory=lambda: np.zeros(6))
    """Sums over the train split of 1, x, y, xx, yy and xy, where x is the logarithm of the length and y the score."""

    def add(self, columns: Mapping[str, np.ndarray], alpha: float) -> np.ndarray:
        """Count the documents of a shard; returns [documents] bool, those that are left out."""
        score, characters = columns["score"], columns["characters"].astype(np.int64)
        train = columns["split"] == "train"
        out = train & ~stays(score, columns["draw"], alpha) & (not self.is_positive)
        self.documents.update(columns["split"].tolist())
        self.low_quality.update(columns["split"][out].tolist())
        self.characters += int(characters[train].sum())
        self.low_quality_characters += int(characters[out].sum())
        self.histogram += np.histogram(score, BINS, (0, 1))[0]
        place = np.searchsorted(LENGTHS, characters, side="right")
        for at, which in enumerate((train, out)):
            self.lengths[:, at] += np.bincount(place[which], minlength=len(self.lengths))
        x, y = np.log(np.maximum(characters[train], 1)), score[train]
        self.moments += [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
        return np.asarray(out)

    def to_counts(self, left_out_before: int) -> dict[str, Any]:
        """The counts as the ledger has them."""
        count, total = self.moments[0], self.moments[2]
        return {
            "positive": self.is_positive,
            "documents": dict(sorted(self.documents.items())),
            REASON: dict(sorted(self.low_quality.items())),
            "left_out_before": left_out_before,
            "characters": {"train": self.characters, REASON: self.low_quality_characters},
            "mean_score": round(total / count, 3) if count else None,
            "length_correlation": self._correlation(),
            "histogram": self.histogram.tolist(),
            "lengths": [
                {"below": limit, "documents": documents, REASON: out}
                for limit, (documents, out) in zip((*LENGTHS, None), self.lengths.tolist(), strict=True)
            ],
        }

    def _correlation(self) -> float | None:
        """Correlation of score and logarithm of the length; None where one of them does not vary."""
        count, x, y, xx, yy, xy = self.moments.tolist()
        spread = (count * xx - x * x) * (count * yy - y * y)
        return round((count * xy - x * y) / math.sqrt(spread), 2) if spread > 1e-9 * count**2 else None


def write_lists(
    workspace: Workspace, dataset: str, shards: Sequence[ScoredShard], *, is_positive: bool, alpha: float
) -> tuple[list[Path], ScoreCounts]:
    """Write the lists of a dataset from the scores of its shards; returns the files and the counts."""
    counts = ScoreCounts(is_positive)
    lists = ((part_number(shard.path), _rows(shard, counts, alpha)) for shard in shards)
    return removal_lists.write(workspace.quality, dataset, lists, workspace.digest), counts


def _rows(shard: ScoredShard, counts: ScoreCounts, alpha: float) -> pa.Table:
    columns = read_scores(shard.scores)
    gone = counts.add(columns, alpha)
    with reading_part(shard.scores):
        ids = pq.read_table(shard.scores, columns=["id"])["id"].filter(pa.array(gone))
    count = len(ids)
    return pa.table(
        {
            "document": columns["document"][gone],
            "id": ids,
            "split": columns["split"][gone],
            "reason": np.full(count, REASON),
            "detail": [f"score {score:.4f}" for score in columns["score"][gone].tolist()],
            "start": np.zeros(count, np.int32),
            "end": columns["characters"][gone],
            "whole": np.ones(count, np.bool_),
        }
    ).cast(REMOVED_SCHEMA)


def check_books(folder: Path, ledgers: Mapping[str, Ledger], counts: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BooksError unless documents = left out before + scored, and each list has what was counted, each once."""
    for name, own in counts.items():
        there, scored = ledgers[name].counts["documents"], sum(own["documents"].values())
        if there != scored + own["left_out_before"]:
            raise BooksError(
                f"{name}: {there:,} documents are not {scored:,} scored + {own['left_out_before']:,} left out before"
            )
        index = removal_lists.read_index(removal_lists.index_path(folder, name))
        if index.documents != Counter(own[REASON]) or index.reasons.total() != index.documents.total():
            raise BooksError(f"{name}: its lists have {dict(index.documents)} documents, not {own[REASON]}")
        for part in index.shards:
            references = removal_lists.read_list(removal_lists.list_path(folder, name, part), ["document"])
            if (np.diff(references["document"].to_numpy()) <= 0).any():
                raise BooksError(f"{name}: the list of {part} repeats a document, or is out of order")


def notes_on(counts: Mapping[str, Mapping[str, Any]], alpha: float) -> tuple[str, ...]:
    """A note on the datasets of which little stays."""
    few = list[str]()
    for name, own in counts.items():
        there, out = own["documents"].get("train", 0), own[REASON].get("train", 0)
        if there and there - out < FEW * there:
            few.append(f"{name} {(there - out) / there:.1%}")
    if not few:
        return ()
    note = (
        f"little stays of {', '.join(few)}: the score tells their kind of text from the positive one, not only poor "
        f"text from good. Name good text of their kind with --positive, other datasets with --dataset, or an --alpha "
        f"below {alpha:g}"
    )
    return (note,)
