"""Documents that share a question, brought together on the disk.

In: the used documents of a dataset, in any order. Out: partitions, Arrow files in which each question has all of its
answers; and what could not be used.
Invariants: documents with the same question are in one partition, in the order of the documents; the number of
partitions follows from the characters of the documents alone.
Cost: one row group of documents in memory; the texts are written and read once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from corpus.pipeline import templates
from corpus.pipeline.manifest import SPLITS
from corpus.pipeline.manifest.schema import Votes
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import document_ref, has_turns, part_metadata, parts
from corpus.pipeline.workspace.files import disk_errors, scratch

PARTITION_CHARACTERS = 8 << 20
MOST_PARTITIONS = 512
"""As many files are open at once."""
SCHEMA = pa.schema(
    [
        pa.field("question", pa.list_(pa.string())),  # the turns of the prompt; none where there is no question
        pa.field("group", pa.string()),  # the answers of one question that are compared have it in common
        pa.field("document", pa.int64()),
        pa.field("split", pa.int8()),
        pa.field("answers", pa.list_(pa.string())),  # one, or those of a given ranking, best first
        pa.field("score", pa.int64()),
        pa.field("time", pa.int64()),
    ]
)


def count(folder: Path) -> int:
    """The number of partitions for the documents of a folder."""
    characters = sum(
        sum(found[1]["characters"].values()) for path in parts(folder) if (found := part_metadata(path)) is not None
    )
    return min(MOST_PARTITIONS, 1 + characters // PARTITION_CHARACTERS)


@contextlib.contextmanager
def divide(
    folder: Path, documents: Path, chosen: selection.Selection, votes: Votes | None, books: Counter[str]
) -> Iterator[list[Path]]:
    """The partitions of a documents folder, as files in `folder` that are deleted at the end.

    `books` counts answers, and those that are left out here: `read`, and reasons.
    """
    with contextlib.ExitStack() as stack:
        number = count(documents)
        paths = [stack.enter_context(scratch(folder / f"partition-{at:03d}")) for at in range(number)]
        with contextlib.ExitStack() as writing, disk_errors(folder):
            writers = [writing.enter_context(pa.ipc.new_stream(str(path), SCHEMA)) for path in paths]
            for path in parts(documents):
                for rows in _rows(path, chosen, votes, books):
                    by_partition: dict[int, list[dict[str, Any]]] = {}
                    for key, row in rows:
                        by_partition.setdefault(key % number, []).append(row)
                    for at, values in sorted(by_partition.items()):
                        writers[at].write_batch(pa.RecordBatch.from_pylist(values, schema=SCHEMA))
        yield paths


def _rows(
    path: Path, chosen: selection.Selection, votes: Votes | None, books: Counter[str]
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Batches of (hash of the question, row) of one documents shard."""
    is_given = has_turns(path)
    columns = ["text", "prompt_length", "split", *(["turns"] if is_given else ["meta"])]
    for shard, lines, batch in selection.read_selected(path, columns, chosen):
        found = []
        for line, row in zip(lines.tolist(), batch.to_pylist(), strict=True):
            reference = document_ref(shard, line)
            made = _given(row) if is_given else _voted(row, votes)
            books["read"] += len(made["answers"])
            reason = "cut" if reference in chosen.cuts else made.pop("reason", "")
            if reason:
                books[reason] += len(made["answers"])
                continue
            made |= {"document": reference, "split": SPLITS.index(row["split"])}
            key = made["question"] or sorted(made["answers"])
            found.append((_hash(key), made))
        yield found


def _given(row: dict[str, Any]) -> dict[str, Any]:
    """A document that is a ranking."""
    question, answers = templates.ranked(row["text"], row["turns"], row["prompt_length"])
    reason = {} if all(question) else {"reason": "without_prompt"}
    return {"question": question, "group": None, "answers": answers, "score": None, "time": None} | reason


def _voted(row: dict[str, Any], votes: Votes | None) -> dict[str, Any]:
    """A document that is one answer, or the reason why it is none."""
    pair = templates.turn(row["text"], row["prompt_length"])
    if pair is None or votes is None:
        return {"answers": [row["text"]], "reason": "without_prompt"}
    values = json.loads(row["meta"])
    named, score = values.get(votes.question), _whole(values.get(votes.score))
    found = {
        "question": [pair[0]], "group": json.dumps(named), "answers": [pair[1]], "score": score,
        "time": _whole(values.get(votes.time)),
    }  # fmt: skip
    return found if named is not None and score is not None else found | {"reason": "no_score"}


def _whole(value: object) -> int | None:
    """A whole number, also one that is written as a string."""
    if isinstance(value, str) and value.strip().lstrip("-").isdecimal():
        return int(value)
    return value if type(value) is int else None


def _hash(texts: Sequence[str]) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest(), "big")
