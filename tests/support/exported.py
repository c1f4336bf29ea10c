"""A workspace to export from: two datasets in several shards, with duplicates; and readers of what was exported."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq

from corpus.pipeline import decontaminate, dedup, documents, download, pack, tokenizer
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID
from tests.support.records import baike, lines

NAMES = ("wiki2019zh", "baike2018qa")
STEPS = "，".join(f"第{n}步要看清楚再动手" for n in range(90))
"""An article longer than a row, of which an evaluation item holds a part."""
Documents = dict[tuple[str, str, int], list[int]]
"""Tokens by dataset, split and document."""


def _wiki(number: int) -> dict[str, str]:
    text = f"第{number}座桥建成于{1800 + number}年，" + "两岸的人都从桥上走过。" * (1 + number % 5)
    return {"id": str(number), "url": "", "title": f"词条{number}", "text": text}


def lay(root: Path) -> None:
    """Make the workspace: documents, duplicates among them, a tokenizer, rows."""
    workspace, source = Workspace(root / "workspace"), root / "source"
    source.mkdir()
    records = [baike(n, answer="" if n % 30 == 7 else f"答案{n}是{n * 7}，{'道理' * (n % 9)}。") for n in range(240)]
    copies = [baike(n, qid=f"again_{n}", answer=records[n]["answer"]) for n in range(0, 60, 5)]
    (source / TRAIN).write_bytes(lines([*records, *copies]))
    (source / VALID).write_bytes(lines([baike(n) for n in range(300, 330)]))
    (source / "AA").mkdir()
    (source / "AA" / "wiki_00").write_bytes(lines([*(_wiki(n) for n in range(260)), _wiki(999) | {"text": STEPS}]))
    with workspace.writing("test"):
        for name in NAMES:
            download.run(download.DownloadConfig(dataset=name, source=str(source)), workspace)
            documents.run(
                documents.IngestConfig(
                    dataset=name, workers=1, piece_bytes=6_000, min_length=1, off=("repeated_spans", "little_han")
                ),
                workspace,
            )
        dedup.run(dedup.DedupConfig(workers=1, near=False), workspace)
        (root / "items.jsonl").write_bytes(lines([{"question": f"题目：{STEPS[60:110]}"}]))
        decontaminate.run(
            decontaminate.DecontaminateConfig(against=(root / "items.jsonl",), cut=True, workers=1), workspace
        )
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=360), workspace)
        for name in NAMES:
            pack.run(pack.PackConfig(dataset=name, seq_length=64, workers=1), workspace)


def of_rows(workspace: Workspace) -> Documents:
    """The tokens of every document in packed rows."""
    found: dict[tuple[str, str, int], dict[int, list[int]]] = defaultdict(dict)
    for name in NAMES:
        for split, rows in datasets.load_from_disk(str(workspace.packed(name))).items():
            for row in rows:
                position = 0
                for segment in row["segments"]:
                    ids = row["input_ids"][position : position + segment["length"]]
                    found[name, split, segment["document"]][segment["start"]] = ids
                    position += segment["length"]
    return {key: [token for start in sorted(parts) for token in parts[start]] for key, parts in found.items()}


def lineage(place: Path) -> list[dict[str, Any]]:
    """The lineage of an export, with dataset and split of each document, in order of the file names."""
    rows: list[dict[str, Any]] = []
    for path in sorted((place / "lineage").iterdir()):
        name, split, _ = path.stem.rsplit("-", 2)
        rows += [{"dataset": name, "split": split, **row} for row in pq.read_table(path).to_pylist()]
    return rows


def of_flat(place: Path, *, header: int = 0) -> tuple[Documents, dict[str, int]]:
    """Documents by their lineage in files of 16-bit ids, and the tokens that no document claims, by file."""
    found: Documents = {}
    rest: dict[str, int] = {path.name: (path.stat().st_size - header) // 2 for path in place.glob("*.bin")}
    for row in lineage(place):
        data = np.memmap(place / row["file"], dtype=np.uint16, mode="r", offset=header)
        ids = data[row["start"] : row["start"] + row["length"]].tolist()
        found[row["dataset"], row["split"], row["document"]] = ids
        rest[row["file"]] -= len(ids)
    return found, rest


def of_megatron(place: Path) -> Documents:
    """Documents by the index of Megatron-LM, in the order of the lineage."""
    named, found = defaultdict[str, list[dict[str, Any]]](list), Documents()
    for row in lineage(place):
        named[row["file"]].append(row)
    for file, rows in named.items():
        data = (place / file).with_suffix(".idx").read_bytes()
        count = len(rows)
        lengths = np.frombuffer(data, "<i4", count, offset=34)
        starts = np.frombuffer(data, "<i8", count, offset=34 + 4 * count)
        assert np.frombuffer(data, "<i8", offset=34 + 12 * count).tolist() == list(range(count + 1))
        tokens = (place / file).read_bytes()
        for row, start, length in zip(rows, starts.tolist(), lengths.tolist(), strict=True):
            ids = np.frombuffer(tokens, "<u2", length, offset=start).tolist()
            found[row["dataset"], row["split"], row["document"]] = ids
    return found


def of_mds(place: Path) -> Documents:
    """Documents by the indices of MDS, in the order of the lineage."""
    named = {(row["file"], row["start"]): row for row in lineage(place)}
    found = Documents()
    for index in place.rglob("index.json"):
        for shard in json.loads(index.read_bytes())["shards"]:
            path = index.with_name(shard["raw_data"]["basename"])
            data = path.read_bytes()
            assert len(data) == shard["raw_data"]["bytes"]
            offsets = np.frombuffer(data, "<u4", shard["samples"] + 1, offset=4).tolist()
            for number, (begin, end) in enumerate(itertools.pairwise(offsets)):
                name_size, _ = np.frombuffer(data, "<u4", 2, offset=begin).tolist()
                row = named[path.relative_to(place).as_posix(), number]
                assert data[begin + 8 : begin + 8 + name_size].decode() == row["id"]
                ids = np.frombuffer(data[end - 2 * row["length"] : end], "<u2").tolist()
                found[row["dataset"], row["split"], row["document"]] = ids
    return found
