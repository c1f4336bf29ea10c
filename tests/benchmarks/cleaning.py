"""Is cleaned text worth training on: bits per character of one small model after equal training compute.

In: the sample of real text (CORPUS_MIRROR). Out: a table, one row a training set, one column a corpus. Three training
sets: records merely parsed and put together as they came; cleaned, masked and filtered; and the same without the
duplicates. Each gets a tokenizer of its own of the same size, rows of the same length, and a model of the same shape
with as many steps. All are measured on the same documents: the validation splits, cleaned and without duplicates.

Run it with `python -m tests.benchmarks.cleaning --work FOLDER`. Cost: about five minutes a training set on two cores.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.pipeline.clean import rules
from corpus.pipeline.clean.quality import QUALITY
from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents import transform
from corpus.pipeline.documents.counts import Counts
from corpus.pipeline.download import stage as download
from corpus.pipeline.manifest import CORPORA, Manifest
from corpus.pipeline.storage import selection
from corpus.pipeline.storage.document_shards import DOCUMENT_SCHEMA, parts
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, write_ledger
from tests.benchmarks import small
from tests.benchmarks.inputs import MIRROR

NOTHING = rules.Table(
    (), np.zeros(0x110000, np.uint16), np.zeros(64, np.uint16), {"strip_invisible": 0, "collapse_lines": 0}
)
"""A table of no cleaning rules."""


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for workspaces.")
@small.options
@click.option("--seed", "seeds", default=(1,), multiple=True, show_default=True, help="Of weights and order.")
def main(work: Path, seeds: tuple[int, ...], **settings: Any) -> None:
    """Train one model a training set and print the table."""
    shutil.rmtree(work, ignore_errors=True)
    cleaned = _ingested(work / "cleaned-all")
    with _as_it_came():
        parsed = _ingested(work / "parsed-all")
    sets = {"parsed": (parsed, False), "cleaned": (cleaned, False), "cleaned, no duplicates": (cleaned, True)}
    print("training set, train characters | bits per character: " + ", ".join(CORPORA) + ", mean", flush=True)
    for seed in seeds:
        for name, (source, chosen) in sets.items():
            scores, characters = _measure(source, cleaned, work / "run", seed, settings, chosen=chosen)
            bits = [*scores.values(), sum(scores.values()) / len(scores)]
            print(f"{name}, {characters:,} | {', '.join(f'{each:.3f}' for each in bits)}", flush=True)


def _ingested(folder: Path) -> Workspace:
    workspace = Workspace(folder)
    with workspace.writing("cleaning"):
        for dataset in CORPORA:
            download.run(download.DownloadConfig(dataset=dataset, source=str(MIRROR)), workspace)
            ingest.run(ingest.IngestConfig(dataset=dataset, workers=1), workspace)
        dedup.run(dedup.DedupConfig(workers=1), workspace)
    return workspace


@contextmanager
def _as_it_came() -> Iterator[None]:
    """Within it, ingest only parses: no cleaning, no masks, no filter but that there is text."""

    def off(manifest: Manifest, _: ingest.IngestConfig) -> Manifest:
        quality = replace(manifest.quality, trim=False, adverts=False, mask=(), off=QUALITY)
        return replace(manifest, quality=quality, min_length=0)

    with mock.patch.object(transform, "rules", return_value=NOTHING), mock.patch.object(ingest, "_switched", off):
        yield


def _measure(
    source: Workspace, held_out: Workspace, folder: Path, seed: int, settings: dict[str, Any], *, chosen: bool
) -> tuple[dict[str, float], int]:
    """Bits per character of each corpus, and how many characters there were to train on."""
    shutil.rmtree(folder, ignore_errors=True)
    workspace = Workspace(folder)
    characters = 0
    with workspace.writing("cleaning"):
        for dataset in CORPORA:
            train = _texts(source, dataset, "train", chosen=chosen)
            characters += sum(map(len, train))
            _write(
                workspace, dataset, {"train": train, "validation": _texts(held_out, dataset, "validation", chosen=True)}
            )
        tokenizer.run(tokenizer.TokenizerConfig(vocab_size=settings["vocab_size"]), workspace)
        scores = small.bits_per_character(workspace, seed, settings)
    return scores, characters


def _texts(workspace: Workspace, dataset: str, split: str, *, chosen: bool) -> list[str]:
    """Documents of a split; without those that are left out when `chosen`."""
    out = selection.load(workspace, dataset) if chosen else selection.Selection()
    texts: list[str] = []
    for path in parts(workspace.documents(dataset)):
        for _, _, batch in selection.read_selected(path, ["text", "split"], out):
            pairs = zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True)
            texts += [text for text, of in pairs if of == split and text]
    return texts


def _write(workspace: Workspace, dataset: str, splits: dict[str, list[str]]) -> None:
    """One documents shard, as ingest writes it, and its ledger."""
    rows = [
        {"id": f"{split}-{number}", "text": text, "prompt_length": 0, "split": split, "source_file": "-",
         "source_offset": number, "meta": "{}"}
        for split, texts in splits.items() for number, text in enumerate(texts)
    ]  # fmt: skip
    counts = Counts(records=len(rows))
    for split, texts in splits.items():
        counts.documents[split], counts.characters[split] = len(texts), sum(map(len, texts))
    folder = workspace.documents(dataset)
    with atomic(folder / "part-00000.parquet") as out, pq.ParquetWriter(out, DOCUMENT_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA))
        transform.sign(writer, "cleaning", counts.to_dict())
    outputs = [workspace.file_digest(folder / "part-00000.parquet", folder)]
    ledger = Ledger(
        stage="ingest", dataset=dataset, version=ingest.VERSION, config={}, inputs=[], outputs=outputs,
        counts=counts.to_dict(), fingerprint="cleaning",
    )  # fmt: skip
    write_ledger(folder, ledger, {})


if __name__ == "__main__":
    main()
