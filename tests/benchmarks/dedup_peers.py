"""Jobs that find near duplicates with other tools, each in a process of its own (`job`), on the same documents.

In: a folder `documents/` of a workspace. Out: `clusters.json` in the folder `out`: for each document that has a
duplicate, by `DATASET:ID`, its cluster and whether it stays; and the figures of the job.
Method: each tool with its own defaults, as its documentation runs it on one machine, and with shingles of five
characters as ours: none of the two splits Chinese by itself without a word segmenter, so both are told to take each
character for a word. Nothing of this is inside the clock but what the tool does.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.job import Clock

CLUSTERS = "clusters.json"
NEEDS = {"datatrove": "datatrove", "text-dedup": "text_dedup"}
"""The module of each tool."""
SHINGLE = 5


def datatrove(clock: Clock, *, documents: str, out: str, workers: int = 2) -> dict[str, Any]:
    """The four steps: signatures, buckets, clusters, filter."""
    import pyarrow.parquet as pq
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Characters(WordTokenizer):  # type: ignore[misc]  # datatrove is untyped to us
        """Each character is a word."""

        def word_tokenize(self, text: str) -> list[str]:
            return [character for character in text if not character.isspace()]

        sent_tokenize = span_tokenize = word_tokenize

    _empty(out)
    config = MinhashConfig(hash_config=HashConfig(precision=64), n_grams=SHINGLE)
    files = sorted(Path(documents).glob("*/part-*.parquet"))
    read = {"glob_pattern": "*/part-*.parquet", "recursive": True, "read_metadata": False}
    steps = [
        ([ParquetReader(documents, **read), MinhashDedupSignature(f"{out}/s", config, Characters())], len(files)),
        ([MinhashDedupBuckets(f"{out}/s", f"{out}/b", config=config)], config.num_buckets),
        ([MinhashDedupCluster(f"{out}/b", f"{out}/r", config=config, save_cluster_id=True)], 1),
        (
            [
                ParquetReader(documents, **read),
                MinhashDedupFilter(
                    f"{out}/r", JsonlWriter(f"{out}/removed", compression=None), load_cluster_ids=True
                ),
                JsonlWriter(f"{out}/kept", compression=None),
            ],
            len(files),
        ),
    ]  # fmt: skip
    with clock:
        for number, (pipeline, tasks) in enumerate(steps):
            _run(pipeline, f"{out}/logs{number}", tasks, workers)
    found: dict[str, list[Any]] = {}
    for rank, path in enumerate(files):  # a task reads one file, in this order
        ids = pq.read_table(path, columns=["id"])["id"].to_pylist()
        gone = {line for (line,) in _numbers(Path(out, "r", f"{rank:06d}.remove"), "<I")}
        for line, cluster in _numbers(Path(out, "r", f"{rank:06d}.clusters"), "<2I"):
            found[f"{path.parent.name}:{ids[line]}"] = [cluster, line not in gone]
    return _keep(found, out)


def _numbers(path: Path, form: str) -> Iterator[tuple[int, ...]]:
    return struct.iter_unpack(form, path.read_bytes() if path.is_file() else b"")


def _run(pipeline: list[Any], logs: str, tasks: int, workers: int) -> None:
    from datatrove.executor import LocalPipelineExecutor

    LocalPipelineExecutor(pipeline=pipeline, tasks=tasks, workers=min(tasks, workers), logging_dir=logs).run()


def text_dedup(clock: Clock, *, documents: str, out: str, workers: int = 2) -> dict[str, Any]:
    """`python -m text_dedup.minhash` with `--threshold 0.7` and its default of 250 permutations."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from text_dedup import minhash

    _empty(out)
    ids: list[str] = []
    texts: list[str] = []
    for path in sorted(Path(documents).glob("*/part-*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        ids += [f"{path.parent.name}:{name}" for name in table["id"].to_pylist()]
        texts += [" ".join(text) for text in table["text"].to_pylist()]
    Path(out, "input").mkdir()
    pq.write_table(pa.table({"text": texts}), f"{out}/input/part.parquet")
    arguments = (
        f"--path parquet --data_files {out}/input/part.parquet --split train --column text --ngram {SHINGLE} "
        f"--threshold 0.7 --num_proc {workers} --cache_dir {out}/cache --output {out}/kept --batch_size 10000"
    )
    with clock:
        minhash.main.main(arguments.split(), standalone_mode=False)
    roots = [minhash.uf.find(number) for number in range(len(ids))]
    sizes: dict[int, int] = {}
    for root in roots:
        sizes[root] = sizes.get(root, 0) + 1
    found = {
        name: [root, root == number] for number, (name, root) in enumerate(zip(ids, roots, strict=True))
        if sizes[root] > 1
    }  # fmt: skip
    return _keep(found, out)


def _empty(out: str) -> None:
    shutil.rmtree(out, ignore_errors=True)
    Path(out).mkdir(parents=True)


def _keep(found: dict[str, list[Any]], out: str) -> dict[str, Any]:
    Path(out, CLUSTERS).write_text(json.dumps(found), encoding="utf-8")
    return {"in clusters": len(found), "removed": sum(not stays for _, stays in found.values())}
