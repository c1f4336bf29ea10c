"""Rankings in Arrow: schema, files, and how `datasets.load_from_disk` finds them.

In: token ids of questions and answers, and which answer of a question is better than which. Out: tables, for files
that pyarrow, polars, duckdb and `datasets.load_from_disk` open with one line; `row_shards.open_rows` does.
Invariants: a row is one question; its answers stand best first; each is in at least one pair.
Cost: two bytes a token (four above 65,536 entries). Rows are memory-mapped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from corpus.pipeline.storage.row_shards import token_type

SOURCE_TYPE = pa.struct([("document", pa.int64()), ("place", pa.int32())])
PAIR_TYPE = pa.struct([("better", pa.int16()), ("worse", pa.int16())])


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Answers to one question, best first."""

    question: np.ndarray
    """[tokens] what a model reads before each answer; empty where there is no question."""
    answers: Sequence[np.ndarray]
    """[tokens] of each answer, the separator at its end included."""
    sources: Sequence[tuple[int, int]]
    """For each answer its document, and its place in a document that is a ranking; else 0."""
    pairs: Sequence[tuple[int, int]]
    """Numbers of the better and of the worse answer."""


def rankings_table(rankings: Sequence[Ranking], vocab_size: int) -> pa.Table:
    """Rankings as a table."""
    kind = token_type(vocab_size)
    values = pa.array(
        np.concatenate([np.zeros(0, np.int64), *(ids for each in rankings for ids in each.answers)]), kind
    )
    ends = np.cumsum([0, *(len(ids) for each in rankings for ids in each.answers)])
    answers = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)
    groups = np.cumsum([0, *(len(each.answers) for each in rankings)])
    columns = {
        "question": pa.array([each.question for each in rankings], pa.list_(kind)),
        "answers": pa.ListArray.from_arrays(pa.array(groups, pa.int32()), answers),
        "sources": _structs([each.sources for each in rankings], SOURCE_TYPE),
        "pairs": _structs([each.pairs for each in rankings], PAIR_TYPE),
    }
    return pa.table(columns)


def _structs(rows: Sequence[Sequence[tuple[int, int]]], kind: pa.StructType) -> pa.Array:
    flat = np.array([each for row in rows for each in row], np.int64).reshape(-1, 2)
    fields = [pa.array(flat[:, at], kind[at].type) for at in range(2)]
    ends = np.cumsum([0, *map(len, rows)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.StructArray.from_arrays(fields, fields=list(kind)))


def describe_rankings(vocab_size: int, *, name: str) -> bytes:
    """`dataset_info.json`, from which `datasets` takes the features of the shards."""

    def several(feature: dict[str, Any]) -> dict[str, Any]:
        return {"feature": feature, "_type": "List"}

    def scalar(kind: pa.DataType) -> dict[str, Any]:
        return {"dtype": str(kind), "_type": "Value"}

    token = scalar(token_type(vocab_size))
    info = {
        "citation": "",
        "description": f"Answers to one question in order of preference: {name}.",
        "features": {
            "question": several(token),
            "answers": several(several(token)),
            "sources": several({field.name: scalar(field.type) for field in SOURCE_TYPE}),
            "pairs": several({field.name: scalar(field.type) for field in PAIR_TYPE}),
        },
        "homepage": "",
        "license": "",
    }
    return (json.dumps(info, ensure_ascii=False, sort_keys=True, indent=2) + "\n").encode()
