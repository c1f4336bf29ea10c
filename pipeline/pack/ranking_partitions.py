"""Documents that share a question, brought together on the disk.

In: the used documents of a dataset, in any order. Out: partitions, Arrow files in which each question has all of its
answers; and the books of each: what was read, and what could not be used.
Invariants: documents whose questions are the same but for script, width, punctuation and white space are in one
partition, in the order of the documents; the number of partitions follows from the characters of the documents alone.
Cost: one row group of documents in memory; all documents are read, and the texts of the wanted partitions are written
and read once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpus.pipeline import templates
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.manifest.schema import Votes
from corpus.pipeline.read.nested import value_at
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import characters_of, document_ref, has_turns, part_number, parts
from corpus.pipeline.text.codepoints import text_of
from corpus.pipeline.text.normalize import fold_all
from corpus.pipeline.workspace.files import disk_errors, scratch

PARTITION_CHARACTERS = 8 << 20
MOST_PARTITIONS = 512
"""As many files are open at once."""
SCHEMA = pa.schema(
    [
        pa.field("question", pa.list_(pa.string())),  # the turns of the prompt; none where there is no question
        pa.field("key", pa.string()),  # what decides the split: the folded question, or answers without one
        pa.field("group", pa.string()),  # the answers of one question that are compared have it in common
        pa.field("document", pa.int64()),
        pa.field("split", pa.int8()),
        pa.field("answers", pa.list_(pa.string())),  # one, or those of a given ranking, best first
        pa.field("score", pa.int64()),
        pa.field("time", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Partition:
    """The work of a worker."""

    number: int
    path: Path
    books: Counter[str] = field(default_factory=Counter)
    """`documents`, the answers `read`, and those left out here by reason. A document without a question counts for the
    partition that its documents shard names."""


def count(folder: Path) -> int:
    """The number of partitions for the documents of a folder."""
    characters = sum(sum(characters_of(path).values()) for path in parts(folder))
    return min(MOST_PARTITIONS, 1 + characters // PARTITION_CHARACTERS)


@contextlib.contextmanager
def divide(
    folder: Path, documents: Path, chosen: selection.Selection, votes: Votes | None, wanted: Collection[int]
) -> Iterator[list[Partition]]:
    """The wanted partitions of a documents folder, by number, with files in `folder` that are deleted at the end."""
    with contextlib.ExitStack() as stack:
        number = count(documents)
        found = {
            at: Partition(at, stack.enter_context(scratch(folder / f"partition-{at:03d}"))) for at in sorted(wanted)
        }
        with contextlib.ExitStack() as writing, disk_errors(folder):
            writers = {
                at: writing.enter_context(pa.ipc.new_stream(str(each.path), SCHEMA)) for at, each in found.items()
            }
            for path in parts(documents) if found else ():
                left_out = found.get(part_number(path) % number)
                for rows in _rows(path, chosen, votes, left_out.books if left_out else Counter()):
                    by_partition: dict[int, list[dict[str, Any]]] = {}
                    for row in rows:
                        by_partition.setdefault(_hash(row["key"]) % number, []).append(row)
                    for at in sorted(by_partition.keys() & found.keys()):
                        values = by_partition[at]
                        answers = sum(len(row["answers"]) for row in values)
                        found[at].books.update({"documents": len(values), "read": answers})
                        writers[at].write_batch(pa.RecordBatch.from_pylist(values, schema=SCHEMA))
        yield [*found.values()]


def _rows(
    path: Path, chosen: selection.Selection, votes: Votes | None, left_out: Counter[str]
) -> Iterator[list[dict[str, Any]]]:
    """Batches of rows of one documents shard; `left_out` counts the documents without rows by reason."""
    is_given = has_turns(path)
    columns = ["text", "prompt_length", "split", *(["turns"] if is_given else ["meta"])]
    cut = chosen.shard(part_number(path)).cuts
    for shard, lines, batch in selection.read_selected(path, columns, chosen):
        found = []
        for line, row in zip(lines.tolist(), batch.to_pylist(), strict=True):
            reference = document_ref(shard, line)
            made = _given(row) if is_given else _voted(row, votes)
            reason = "cut" if line in cut else made.pop("reason", "")
            if reason:
                answers = len(made["answers"])
                left_out.update({"documents": 1, "read": answers, reason: answers})
                continue
            found.append(made | {"document": reference, "split": SPLITS.index(row["split"])})
        for each, key in zip(found, _keys(found), strict=True):
            each["key"] = key
        yield found


def _keys(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The folded questions; as it is one that holds punctuation alone."""
    texts = ["".join(row["question"] or sorted(row["answers"])) for row in rows]
    folded = fold_all(texts)
    whole = text_of(folded.codes)
    spans = itertools.pairwise(folded.starts.tolist())
    return [whole[begin:end] or text for text, (begin, end) in zip(texts, spans, strict=True)]


def _given(row: dict[str, Any]) -> dict[str, Any]:
    """A document that is a ranking."""
    question, answers = templates.ranked(row["text"], row["turns"], row["prompt_length"])
    reason = {} if all(question) else {"reason": "without_prompt"}
    return {"question": question, "group": None, "answers": answers, "score": None, "time": None} | reason


def _voted(row: dict[str, Any], votes: Votes | None) -> dict[str, Any]:
    """A document as one answer, or the reason why it is left out."""
    pair = templates.turn(row["text"], row["prompt_length"])
    if pair is None or votes is None:
        return {"answers": [row["text"]], "reason": "without_prompt"}
    values = json.loads(row["meta"])
    named, score = value_at(values, votes.question) if votes.question else "", _whole(value_at(values, votes.score))
    found = {
        "question": [pair[0]], "group": json.dumps(named), "answers": [pair[1]], "score": score,
        "time": _whole(value_at(values, votes.time)) if votes.time else None,
    }  # fmt: skip
    return found if named is not None and score is not None else found | {"reason": "no_score"}


def _whole(value: object) -> int | None:
    """A whole number of 64 bits, also one that is written as a string or, as 3.0, with a point."""
    if isinstance(value, str) or (isinstance(value, float) and value.is_integer()):
        try:
            value = int(value)
        except ValueError:
            return None
    return value if type(value) is int and -(1 << 63) <= value < 1 << 63 else None


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
