"""Packing one partition of questions: the work of a worker.

In: a partition (`ranking_partitions`), the tokenizer and the rules. Out: an Arrow shard of rankings for each split, and
the receipt of the partition.
Invariants: every answer is used or left out for a reason; all answers to one question are in one split, that of them
which is held out most (test before validation before train); punctuation and white space make no other question.
Cost: one partition in memory.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.pack import rankings
from corpus.pipeline.pack.ranking_partitions import Partition
from corpus.pipeline.pack.rankings import Answer, Rules
from corpus.pipeline.pack.shard import Layout
from corpus.pipeline.storage.ranking_shards import Ranking, rankings_table
from corpus.pipeline.storage.row_shards import with_metadata, write_rows
from corpus.pipeline.tokenizer import encoders
from corpus.pipeline.workspace.receipts import PieceWriter, Receipt


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed partition."""

    receipt: Receipt
    """Of its shards; with counts by split in `splits`, answers and pairs by reason in `left_out` and `pairs_left_out`,
    in `moved` the documents whose own split is not that of their question, and the `books` of the partition."""
    engine: str = ""
    """The encoder used."""
    warning: str = ""
    """Why it was not the kernel, for the user."""


@dataclass(slots=True)
class _Group:
    """Answers that are compared with each other."""

    question: tuple[str, ...]
    split: int
    is_given: bool
    answers: list[Answer] = field(default_factory=list)
    sources: list[tuple[int, int]] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)


def pack_partition(
    partition: Partition, *, folder: Path, tokenizer_folder: Path, proof: encoders.Proof, layout: Layout,
    rules: Rules, identity: str,
) -> Packed:  # fmt: skip
    """Compare and encode the answers of one partition and write its shards and receipt; runs in a worker."""
    number = partition.number
    engine = _engine(tokenizer_folder, proof)
    files, left_out, pairs_left_out = PieceWriter(folder, identity, piece_name(number)), Counter[str](), Counter[str]()
    with pa.memory_map(str(partition.path)) as file, pa.ipc.open_stream(file) as reader:
        rows = reader.read_all().to_pylist()
    groups, moved = _groups(rows)
    questions = _encode(groups, engine.encode, layout)
    found: dict[int, list[Ranking]] = {at: [] for at in range(len(SPLITS))}
    for group, question in zip(groups, questions, strict=True):
        judged = rankings.judge(group.answers, rules, longest=layout.seq_length, is_given=group.is_given)
        left_out.update(judged.left_out.values())
        pairs_left_out.update(judged.pairs_left_out)
        if judged.used:
            found[group.split].append(
                Ranking(
                    question=question, answers=[group.ids[at] for at in judged.used],
                    sources=[group.sources[at] for at in judged.used], pairs=judged.pairs,
                )
            )  # fmt: skip
    splits: dict[str, dict[str, int]] = {}
    for at, chosen in found.items():
        if chosen:
            splits[SPLITS[at]] = counts = _counts(chosen)
            table = with_metadata(rankings_table(chosen, layout.vocab_size), identity, counts)
            with files.output(f"{SPLITS[at]}/data-{number:05d}.arrow") as out:
                out.groups += write_rows(out, table)
    counted = {"splits": splits, "left_out": left_out, "pairs_left_out": pairs_left_out, "moved": moved}
    return Packed(files.finish(counted | {"books": dict(partition.books)}), engine.engine, engine.warning)


def piece_name(number: int) -> str:
    """The name of a partition in its receipt."""
    return f"{number:05d}"


@functools.lru_cache(maxsize=1)
def _engine(folder: Path, proof: encoders.Proof) -> encoders.Chosen:
    """The encoder of a run, chosen once a process."""
    return encoders.choose(folder, proof)


def _groups(rows: Sequence[dict[str, Any]]) -> tuple[list[_Group], int]:
    """The groups in the order of their first documents, and documents that follow their question to another split."""
    split_of: dict[str, int] = {}
    for row in rows:
        split_of[row["key"]] = max(split_of.get(row["key"], 0), row["split"])
    groups: dict[object, _Group] = {}
    moved = 0
    for row in rows:
        question = tuple(row["question"])
        split = split_of[row["key"]]
        moved += split != row["split"]
        is_given = row["group"] is None
        name = row["document"] if is_given else (question, row["group"])
        group = groups.setdefault(name, _Group(question, split, is_given))
        for place, text in enumerate(row["answers"]):
            score = -place if is_given else row["score"]
            group.answers.append(Answer(text=text, tokens=0, score=score, time=row["time"]))
            group.sources.append((row["document"], place))
    return list(groups.values()), moved


def _encode(groups: Sequence[_Group], encode: encoders.Encode, layout: Layout) -> list[np.ndarray]:
    """The ids of the questions; those of the answers, and how many there are, are put into the groups.

    A question with a single answer is not encoded.
    """
    several = [group for group in groups if len(group.answers) > 1]
    texts = [text for group in several for text in (*group.question, *(answer.text for answer in group.answers))]
    flat, counts = encode(pa.array(texts, pa.string()))
    pieces = iter(np.split(flat.astype(layout.token_type), np.cumsum(counts)[:-1]) if len(counts) else ())
    separator = np.array([layout.separator], layout.token_type)
    found = []
    for group in groups:
        if len(group.answers) < 2:
            found.append(separator[:0])
            continue
        question = _question([next(pieces) for _ in group.question], layout)
        found.append(question)
        for at, answer in enumerate(group.answers):
            ids = np.concatenate([next(pieces), separator])
            group.ids.append(ids)
            tokens = 1 + len(question) + len(ids)
            group.answers[at] = Answer(text=answer.text, tokens=tokens, score=answer.score, time=answer.time)
    return found


def _question(turns: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
    """The turns of a prompt as chat rows have them, up to the token after which the answer begins."""
    marks = [[layout.user], [layout.assistant]]
    parts = [np.zeros(0, layout.token_type)]
    for at, ids in enumerate(turns):
        parts += [np.array(marks[at % 2], layout.token_type), ids]
        parts += [np.array([layout.separator], layout.token_type)] if at % 2 else []
    parts += [np.array([layout.assistant], layout.token_type)] if turns else []
    return np.concatenate(parts)


def _counts(chosen: Sequence[Ranking]) -> dict[str, int]:
    tokens = sum(len(ids) for each in chosen for ids in each.answers)
    read = sum((1 + len(each.question)) * len(each.answers) for each in chosen)
    return {
        "rows": len(chosen),
        "answers": sum(len(each.answers) for each in chosen),
        "pairs": sum(len(each.pairs) for each in chosen),
        "tokens": tokens + read,
    }
