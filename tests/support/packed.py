"""Packed rows for the tests of training: a real tokenizer, real shards, sentences of our own."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer

from corpus.pipeline.storage import row_shards
from corpus.pipeline.tokenizer import special_tokens, trainer
from corpus.pipeline.workspace.files import atomic, write_atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, FileDigest, Ledger, write_ledger

SENTENCES = (
    "春天的雨下了一整夜，早上院子里的石板还是湿的。",
    "为什么天是蓝的？因为空气把蓝光散射得最多。",
    "他把书合上，听见窗外有人在喊卖豆腐。",
    "面要煮三分钟，水开之后再加一碗凉水。",
    "猫睡在暖气片上，尾巴垂下来轻轻摇。",
    "Tea is 茶, and 茶 came by sea as te.",
    "山那边的灯一盏一盏亮起来，船也该回来了。",
)
SEQ_LENGTH = 48
VOCAB_SIZE = 400


@functools.cache
def make_tokenizer(vocab_size: int = VOCAB_SIZE, copies: int = 4) -> Tokenizer:
    """A byte-level BPE trained on the sentences; another number of copies gives another tokenizer."""
    return trainer.train(SENTENCES * copies + SENTENCES[: copies % 3], vocab_size)


def lay_tokenizer(workspace: Workspace, vocab_size: int = VOCAB_SIZE) -> None:
    """Write `tokenizer/` as the tokenizer stage leaves it."""
    folder = workspace.tokenizer
    names = {
        "eos_token": special_tokens.SEPARATOR,
        "bos_token": special_tokens.SEPARATOR,
        "pad_token": special_tokens.PAD,
    }
    write_atomic(folder / "tokenizer.json", make_tokenizer(vocab_size).to_str(pretty=True).encode())
    write_atomic(
        folder / "tokenizer_config.json", json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}).encode()
    )
    outputs = [workspace.file_digest(folder / name, folder) for name in ("tokenizer.json", "tokenizer_config.json")]
    _finish(workspace, "tokenizer", None, {}, [], outputs)


def random_segments(rows: int, *, seed: int, seq_length: int = SEQ_LENGTH) -> list[list[list[int]]]:
    """Rows of segments of ids: stretches of the sentences, a separator after each."""
    random = np.random.default_rng(seed)
    encoder = make_tokenizer()
    made: list[list[list[int]]] = []
    for _ in range(rows):
        row: list[list[int]] = []
        while True:
            text = "".join(
                SENTENCES[index][: random.integers(3, 14)] for index in random.integers(0, len(SENTENCES), 2)
            )
            segment = [*encoder.encode(text, add_special_tokens=False).ids, separator_id()]
            if sum(map(len, row)) + len(segment) > seq_length:
                break
            row.append(segment)
        made.append(row)
    return made


def separator_id() -> int:
    """Id of the separator."""
    return int(make_tokenizer().token_to_id(special_tokens.SEPARATOR) or 0)


def pad_id() -> int:
    """Id of the padding."""
    return int(make_tokenizer().token_to_id(special_tokens.PAD) or 0)


def lay_packed(
    workspace: Workspace,
    dataset: str,
    splits: dict[str, Sequence[Sequence[Sequence[int]]]],
    *,
    seq_length: int = SEQ_LENGTH,
    vocab_size: int = VOCAB_SIZE,
    later: Collection[int] = (),
    shard_rows: int | None = None,
) -> None:
    """Write `packed/DATASET` as the packing stage leaves it; segments with a number in `later` are later pieces.

    With `shard_rows` there are several shards, which have counts.
    """
    folder, books = workspace.packed(dataset), dict[str, dict[str, int]]()
    for split, rows in splits.items():
        ids = np.full((len(rows), seq_length), pad_id())
        for index, row in enumerate(rows):
            flat = [token for segment in row for token in segment]
            ids[index, : len(flat)] = flat
        lengths = np.array([len(segment) for row in rows for segment in row])
        table = row_shards.rows_table(
            ids,
            np.concatenate(([0], np.cumsum([len(row) for row in rows]))),
            np.arange(len(lengths)),
            np.isin(np.arange(len(lengths)), list(later)) * seq_length,
            lengths,
            vocab_size=vocab_size,
        )
        size = shard_rows or max(1, len(rows))
        tables = [table.slice(first, size) for first in range(0, len(rows), size)] or [table]
        names = [f"data-{number:05d}.arrow" for number in range(len(tables))]
        state = row_shards.describe_state(names, split=split, fingerprint="0" * 64)
        books[split] = {"rows": len(rows), "tokens": int(lengths.sum())}
        write_atomic(
            folder / split / "dataset_info.json", row_shards.describe_rows(seq_length, vocab_size, name=dataset)
        )
        write_atomic(folder / split / "state.json", state)
        for name, piece in zip(names, tables, strict=True):
            shard = piece
            if shard_rows:
                tokens = sum(segment["length"] for row in piece["segments"].to_pylist() for segment in row)
                shard = row_shards.with_metadata(piece, "0" * 64, {"rows": piece.num_rows, "tokens": tokens})
            with atomic(folder / split / name) as file:
                row_shards.write_rows(file, shard)
    write_atomic(folder / "dataset_dict.json", json.dumps({"splits": list(splits)}).encode())
    beside = {LEDGER, "timings.json"}
    written = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in beside]
    outputs = [workspace.file_digest(path, folder) for path in written]
    config = {"seq_length": seq_length, "strategy": "concat", "vocab_size": vocab_size}
    inputs = [workspace.file_digest(workspace.tokenizer / "tokenizer.json")]
    counts = {"splits": books} if shard_rows else {}
    _finish(workspace, f"packed/{dataset}", dataset, config, inputs, outputs, counts)


def lay_all(workspace: Workspace, *, rows: int = 20, validation: int = 5, shard_rows: int | None = None) -> Workspace:
    """A workspace with a tokenizer and two packed datasets."""
    lay_tokenizer(workspace)
    for seed, dataset in enumerate(("demo", "wiki2019zh")):
        splits = {"train": random_segments(rows, seed=seed), "validation": random_segments(validation, seed=10 + seed)}
        lay_packed(workspace, dataset, dict(splits), shard_rows=shard_rows)
    return workspace


def contents(workspace: Workspace) -> dict[str, bytes]:
    """The files of packed rows and tokenizer by name, as a copy elsewhere holds them."""
    paths = [path for area in ("packed", "tokenizer") for path in sorted((workspace.root / area).rglob("*"))]
    return {workspace.relative(path): path.read_bytes() for path in paths if path.is_file()}


def _finish(
    workspace: Workspace,
    area: str,
    dataset: str | None,
    config: dict[str, object],
    inputs: list[FileDigest],
    outputs: list[FileDigest],
    counts: Mapping[str, object] | None = None,
) -> None:
    ledger = Ledger(
        stage=area.partition("/")[0],
        dataset=dataset,
        version=1,
        config=config,
        inputs=inputs,
        outputs=outputs,
        counts=counts or {},
        fingerprint="0" * 64,
    )
    write_ledger(workspace.root / area, ledger, {})
