"""The training sample: random documents of the datasets, and items of files of good text.

In: documents shards and files. Out: which texts are in the sample, their n-grams, and their scores.
Invariants: a text is in the sample when the random number of its dataset and id is among the smallest of its class, so
the sample depends on the documents alone. Documents of the train split are drawn; every tenth text is held back.
Cost: ids are read and hashed once, then the texts of the row groups that hold a chosen document.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.pipeline.errors import SourceError, WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.quality import training
from corpus.pipeline.quality.model_file import Trained
from corpus.pipeline.quality.scoring import Weights, keys_of, scores_of
from corpus.pipeline.quality.training import Counted
from corpus.pipeline.read.items import ItemFile, is_among, items_of, strings
from corpus.pipeline.storage.document_shards import part_number, read_part
from corpus.pipeline.storage.selection import Selection, select
from corpus.pipeline.workers import run_pieces, worker_count

MOST = 8_000
"""Texts of each class."""
FEWEST = 20
"""With fewer texts of a class nothing is trained."""
_HELD_BACK = 10
"""Every so manieth text is held back."""


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """A documents shard and the file of its scores."""

    dataset: str
    path: Path
    count: int
    left_out: Selection
    """What `dedup` and `decontaminate` leave out of it."""
    digest: str
    """Of the shard, and of what is left out."""
    scores: Path
    """`quality/scores/<dataset>/part-NNNNN.parquet`."""

    @property
    def piece(self) -> str:
        """Its name in its receipt."""
        return f"{self.dataset}-{self.path.stem}"


@dataclass(frozen=True, slots=True)
class TextFile:
    """The texts of a file of good text."""

    name: str
    texts: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some texts of one source, by line."""

    source: ScoredShard | TextFile
    lines: np.ndarray
    """[texts] int64, ascending."""
    keys: np.ndarray
    """[texts] uint64."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The texts of a sample, in order of their random numbers."""

    source: np.ndarray
    """[texts] int64: index of each text's source."""
    line: np.ndarray
    key: np.ndarray
    positive: np.ndarray
    """[texts] bool."""
    held_back: np.ndarray
    """[texts] bool: those that the model is not trained on."""

    def of(self, sources: Sequence[ScoredShard | TextFile], which: np.ndarray) -> tuple[list[Chosen], np.ndarray]:
        """Some texts ([texts] bool) source by source, and their places in this order."""
        order = np.flatnonzero(which)
        order = order[np.lexsort((self.line[order], self.source[order]))]
        edges = np.flatnonzero(np.diff(self.source[order], prepend=-1)).tolist()
        groups = np.split(order, edges[1:]) if len(order) else []
        return [_chosen(sources[self.source[part[0]]], self.line[part], self.key[part]) for part in groups], order


def _chosen(source: ScoredShard | TextFile, lines: np.ndarray, keys: np.ndarray) -> Chosen:
    """Some texts of a source; of a file nothing but these."""
    if isinstance(source, TextFile):
        source = TextFile(source.name, [source.texts[line] for line in lines.tolist()])
        lines = np.arange(len(lines))
    return Chosen(source, lines, keys)


def read_texts(path: Path, fields: Sequence[str]) -> TextFile:
    """The texts of a file, one for each item: its strings, or those of the requested fields, one below the other.

    Raises:
        SourceError: the file cannot be read, or has no text.

    """
    texts = list[str]()
    for _, item in items_of(ItemFile(path, name=path.name)):
        found = [text for name, text in strings(item) if text and (not fields or is_among(name, fields))]
        texts += ["\n".join(found)] if found else []
    if not texts:
        raise SourceError(f"{path} has no text" + (f" in the fields {', '.join(fields)}" if fields else ""))
    return TextFile(path.name, texts)


def draw(
    shards: Sequence[ScoredShard], files: Sequence[TextFile], positive: Sequence[str], workers: int, progress: Progress
) -> Sample:
    """Draw the sample from shards and files, which it numbers in this order.

    Raises:
        WorkspaceError: a class has too few texts.
        DamageError: a shard cannot be read.

    """
    found = list[tuple[np.ndarray, np.ndarray]]()
    with progress.bar("quality: sample", sum(shard.count for shard in shards), "documents"):
        picked = run_pieces(pick, shards, workers=worker_count(workers, len(shards)))
        for shard, part in zip(shards, picked, strict=True):
            found.append(part)
            progress.advance(shard.count)
    for file in files:
        keys = keys_of(file.name, map(str, range(len(file.texts))))[:, 1]
        order = _smallest(keys)
        found.append((keys[order], order))
    is_positive = [shard.dataset in positive for shard in shards] + [True] * len(files)
    classes = [_class(found, [at for at, good in enumerate(is_positive) if good == wanted]) for wanted in (True, False)]
    for what, (_, _, keys) in zip(("positive", "other"), classes, strict=True):
        if len(keys) < FEWEST:
            raise WorkspaceError(
                f"there are {len(keys)} {what} texts to train on, and {FEWEST} are needed",
                hint="Name more text with --positive, or ingest more datasets: `corpus status` shows what there is.",
            )
    source, line, key = (np.concatenate(part) for part in zip(*classes, strict=True))
    held_back = np.concatenate([np.arange(len(part[0])) % _HELD_BACK == 0 for part in classes])
    good = np.repeat([True, False], [len(part[0]) for part in classes])
    return Sample(source, line, key, good, held_back)


def pick(shard: ScoredShard) -> tuple[np.ndarray, np.ndarray]:
    """Keys and lines of the documents of a shard that may be in the sample; runs in a worker."""
    keys, lines = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    out = shard.left_out.shard(part_number(shard.path))
    for _, line, whole in read_part(shard.path, ["id", "split"]):
        kept, batch = select(whole, line, out)
        train = pc.equal(batch["split"], "train").to_numpy(zero_copy_only=False)
        keys.append(keys_of(shard.dataset, batch["id"].to_pylist())[train, 1])
        lines.append(kept[train])
    every = np.concatenate(keys)
    order = _smallest(every)
    return every[order], np.concatenate(lines)[order]


def _smallest(keys: np.ndarray) -> np.ndarray:
    """Places of the keys of a class that can be in the sample, ascending by key."""
    return np.argsort(keys, kind="stable")[:MOST]


def _class(
    found: Sequence[tuple[np.ndarray, np.ndarray]], sources: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, line and key of the texts with the smallest keys."""
    keys = np.concatenate([np.zeros(0, np.uint64), *(found[at][0] for at in sources)])
    lines = np.concatenate([np.zeros(0, np.int64), *(found[at][1] for at in sources)])
    owners = np.repeat(np.array(sources, np.int64), [len(found[at][0]) for at in sources])
    order = _smallest(keys)
    return owners[order], lines[order], keys[order]


def train(
    sample: Sample, sources: Sequence[ScoredShard | TextFile], positive: Sequence[str], identity: str, workers: int,
    progress: Progress,
) -> Trained:  # fmt: skip
    """Train on the sample, and measure on what is held back."""
    made_with = training.check_installed()
    chosen, places = sample.of(sources, ~sample.held_back)
    with progress.bar("quality: training", len(places), "texts"):
        counted = list[Counted]()
        for part in run_pieces(count_texts, chosen, workers=worker_count(workers, len(chosen))):
            counted += part
            progress.advance(len(part))
        model = training.fit(counted, sample.positive[places])
    tested, places = sample.of(sources, sample.held_back)
    scored = run_pieces(partial(score_texts, model=model), tested, workers=worker_count(workers, len(tested)))
    scores, good = np.concatenate(list(scored)), sample.positive[places]
    names = np.array([getattr(sources[at], "dataset", "") for at in sample.source[places].tolist()])
    facts = {
        "positive": list(positive),
        "documents": {"positive": int(sample.positive.sum()), "other": int((~sample.positive).sum())},
        "held_back": {"positive": int(good.sum()), "other": int((~good).sum())},
        "auc": round(training.auc(scores[good], scores[~good]), 4),
        "auc_against": {
            name: round(training.auc(scores[good], scores[~good & (names == name)]), 4)
            for name in sorted({*names[~good].tolist()})
        },
        "made_with": f"scikit-learn {made_with}",
    }
    return Trained(model, identity, facts)


def count_texts(chosen: Chosen) -> list[Counted]:
    """The n-grams of some texts; runs in a worker."""
    return [training.count(text, key) for text, key in zip(_texts(chosen), chosen.keys.tolist(), strict=True)]


def score_texts(chosen: Chosen, *, model: Weights) -> np.ndarray:
    """[texts] the scores of some texts; runs in a worker."""
    return scores_of(list(_texts(chosen)), model)


def _texts(chosen: Chosen) -> Iterator[str]:
    """The chosen texts of a source, in order of their lines."""
    if isinstance(chosen.source, TextFile):
        yield from chosen.source.texts
        return
    out = chosen.source.left_out.shard(part_number(chosen.source.path))
    for _, line, whole in read_part(chosen.source.path, ["text"]):
        kept, batch = select(whole, line, out)
        wanted = np.flatnonzero(np.isin(kept, chosen.lines))
        yield from batch["text"].take(pa.array(wanted)).to_pylist()
