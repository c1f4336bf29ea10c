"""Jobs that run our own stages as a library, each in a process of its own (`job`).

A stage's outputs are deleted before it runs, so nothing is skipped; what comes before it is done once and kept.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

from tests.benchmarks.job import Clock

EVERYTHING = 1 << 60
"""As `sample_characters`: train on all there is."""


def download(clock: Clock, *, workspace: str, dataset: str, source: str) -> None:
    """Bring a dataset's files from a folder."""
    from corpus.pipeline.download import stage
    from corpus.pipeline.workspace.layout import Workspace

    place = Workspace(Path(workspace))
    with place.writing("download"), clock:
        stage.run(stage.DownloadConfig(dataset=dataset, source=source), place)


def ingest(
    clock: Clock,
    *,
    workspace: str,
    dataset: str,
    workers: int = 1,
    simplify: bool = True,
    rules: bool = True,
    engine: str = "local",
) -> dict[str, Any]:
    """Make documents anew.

    `simplify` off leaves OpenCC out, which no manifest does by itself. `rules` off, for one worker, leaves out all that
    is done to a text or asked of it, so that reading, JSON, the checks of a record and Parquet remain.
    """
    from corpus.pipeline import engine as engines
    from corpus.pipeline.clean.rules import Cleaned
    from corpus.pipeline.documents import stage, transform
    from corpus.pipeline.workspace.layout import Workspace

    place = Workspace(Path(workspace))
    shipped, changed = place.manifest(dataset), dict[str, Any]()
    if not simplify:
        changed["simplify"] = False
    if not rules:
        changed["quality"] = dataclasses.replace(shipped.quality, trim=False, mask=())
        vars(transform).update(
            clean_all=lambda texts, _: Cleaned(list(texts)), judge_all=lambda made, _: [None] * len(made)
        )
    vars(place)["manifest"] = lambda _: dataclasses.replace(shipped, **changed)
    shutil.rmtree(place.documents(dataset), ignore_errors=True)
    with place.writing("ingest"), engines.using(engine, workers=workers), clock:
        report = stage.run(stage.IngestConfig(dataset=dataset, workers=workers), place)
    return {"counts": dict(report.ledger.counts)}


def dedup(clock: Clock, *, workspace: str, workers: int = 1) -> dict[str, Any]:
    """Find duplicates anew, signatures included."""
    from corpus.pipeline.dedup import stage
    from corpus.pipeline.workspace.layout import Workspace

    place = Workspace(Path(workspace))
    shutil.rmtree(place.dedup, ignore_errors=True)
    with place.writing("dedup"), clock:
        report = stage.run(stage.DedupConfig(workers=workers), place)
    removed = report.ledger.counts["datasets"].values()
    return {"removed": sum(sum(found[why].values()) for found in removed for why in (stage.EXACT, stage.NEAR))}


def tokenizer(
    clock: Clock, *, workspace: str, vocab_size: int = 32_000, sample_characters: int | None = None
) -> dict[str, Any]:
    """Train the tokenizer anew, on the stage's own share of the documents when `sample_characters` is None."""
    from corpus.pipeline.tokenizer import stage
    from corpus.pipeline.workspace.layout import Workspace

    place = Workspace(Path(workspace))
    shutil.rmtree(place.tokenizer, ignore_errors=True)
    config = stage.TokenizerConfig(vocab_size=vocab_size)
    if sample_characters is not None:
        config = dataclasses.replace(config, sample_characters=sample_characters)
    with place.writing("tokenizer"), clock:
        report = stage.run(config, place)
    return {"entries": report.ledger.counts["entries"], "characters": report.ledger.counts["characters"]}


def pack(
    clock: Clock, *, workspace: str, dataset: str, workers: int = 1, seq_length: int = 1024, engine: str = "local"
) -> dict[str, Any]:
    """Pack documents anew."""
    from corpus.pipeline import engine as engines
    from corpus.pipeline.pack import stage
    from corpus.pipeline.workspace.layout import Workspace

    place = Workspace(Path(workspace))
    shutil.rmtree(place.packed(dataset), ignore_errors=True)
    with place.writing("pack"), engines.using(engine, workers=workers), clock:
        report = stage.run(stage.PackConfig(dataset=dataset, workers=workers, seq_length=seq_length), place)
    splits = report.ledger.counts["splits"].values()
    return {
        "tokens": sum(split["tokens"] for split in splits),
        "documents": sum(split["documents"] for split in splits),
        "bytes": sum(output.bytes for output in report.ledger.outputs),
        "engine": _engine(report.folder),
    }


def _engine(folder: Path) -> str:
    import json

    return str(json.loads((folder / "timings.json").read_bytes()).get("engine", ""))


def text_bytes(clock: Clock, *, documents: str, split: str = "") -> dict[str, int]:
    """UTF-8 bytes of the text of all documents, or of one split's."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    total = 0
    for path in sorted(Path(documents).glob("part-*.parquet")):
        table = pq.read_table(path, columns=["text", "split"])
        if split:
            table = table.filter(pc.equal(table["split"], split))
        total += pc.sum(pc.binary_length(table["text"])).as_py() or 0
    return {"bytes": total}


def bytes_per_token(clock: Clock, *, tokenizer: str, documents: str) -> dict[str, float]:
    """What a tokenizer makes of held-out documents: the validation split, originals that no repeat is made of."""
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(tokenizer)
    encoder.encode_special_tokens = True
    size = tokens = 0
    for path in sorted(Path(documents).glob("part-*.parquet")):
        table = pq.read_table(path, columns=["text", "split"], filters=[("split", "=", "validation")])
        texts = table["text"].to_pylist()
        size += sum(len(text.encode()) for text in texts)
        tokens += sum(len(encoding.ids) for encoding in encoder.encode_batch_fast(texts, add_special_tokens=False))
    return {"bytes_per_token": size / tokens if tokens else 0.0, "bytes": size}


def train(clock: Clock, *, workspace: str, model: str, steps: int, warmup: int) -> dict[str, Any]:
    """The training stage; the steps after `warmup` of them count."""
    from corpus.pipeline.progress import Progress
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.train.config import TrainConfig
    from corpus.train.run import stage

    class Steps(Progress):
        """Notes when the training began and when each step was done."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def advance(self, amount: int) -> None:
            self.times.append(time.perf_counter())

    place, seen = Workspace(Path(workspace)), Steps()
    shutil.rmtree(place.models, ignore_errors=True)
    config = TrainConfig(
        model=model, max_steps=steps, eval_steps=10 * steps, save_steps=10 * steps, precision="fp32", resume=False
    )
    with place.writing("train"):
        report = stage.run(config, place, progress=seen)
    times = seen.times[-steps:]
    clock.seconds = times[-1] - times[warmup - 1]
    return {"tokens": (steps - warmup) * _step_tokens(report.ledger.config), "loss": report.ledger.counts["loss"]}


def _step_tokens(settings: Any) -> int:
    return int(settings["batch_size"]) * int(settings["seq_length"])


def loader(clock: Clock, *, workspace: str, model: str, rows: int) -> dict[str, Any]:
    """Rows through the Trainer's own order, dataset and collator, with no model behind."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from corpus.pipeline.workspace.layout import Workspace
    from corpus.train.config import TrainConfig
    from corpus.train.data.sampler import Order, ShuffleGroup
    from corpus.train.data.schedule import Steps
    from corpus.train.run.packed_rows import PackedRows

    config = TrainConfig(model=model)
    packed = PackedRows(config, Workspace(Path(workspace)))
    size = config.preset.batch_size
    order = Order(
        parts=[ShuffleGroup(len(packed.train), rows)],
        steps=Steps(batch_size=size, total=rows),
        micro_batch_size=size,
        seed=1,
    )
    batches = DataLoader(
        cast("Dataset[Any]", packed.train),
        batch_sampler=order,
        collate_fn=packed.collator,
        generator=torch.Generator(),
    )
    with clock:
        tokens = sum(batch["input_ids"].numel() for batch in batches)
    return {"tokens": tokens}


def random_model(clock: Clock, *, workspace: str, model: str, folder: str) -> None:
    """A model of random weights with the workspace's tokenizer beside it."""
    from corpus.pipeline.tokenizer import files, special_tokens
    from corpus.pipeline.workspace.layout import Workspace
    from corpus.train.model import build
    from corpus.train.presets import PRESETS

    place = Workspace(Path(workspace))
    vocabulary = files.load(place.tokenizer)
    made = build.make(
        PRESETS[model],
        vocab_size=vocabulary.get_vocab_size(),
        seq_length=1024,
        separator=vocabulary.token_to_id(special_tokens.SEPARATOR) or 0,
        pad=vocabulary.token_to_id(special_tokens.PAD) or 0,
        dropout=0.0,
        seed=1,
    )
    made.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(place.tokenizer / name, folder)


def sample(clock: Clock, *, model: str, prompt: str, tokens: int, top_k: int, seed: int) -> dict[str, Any]:
    """Write one sample token by token; how long the tenth and the last token took, each as a median of five."""
    import statistics

    from corpus.generate.config import SampleConfig
    from corpus.generate.engine.batch import Batch
    from corpus.generate.engine.model import load

    opened = load(Path(model), device="cpu", precision="fp32")
    ids = [opened.encode(prompt)]

    def write(most: int) -> list[float]:
        config = SampleConfig(prompts=(prompt,), max_new_tokens=most, top_k=top_k, seed=seed)
        batch = Batch(opened, ids, [(0, 0)], config)
        times = [time.perf_counter()]
        while batch.rows:
            for _ in batch.advance():
                pass
            times.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(times)]

    write(8)
    with clock:
        times = write(tokens)
    return {
        "tokens": len(times),
        "tenth_s": statistics.median(times[7:12]),
        "last_s": statistics.median(times[-5:]),
    }


def help_imports(clock: Clock) -> dict[str, list[str]]:
    """Which of the heavy libraries `corpus --help` loads."""
    from click.testing import CliRunner

    from corpus.pipeline.cli.main import cli

    CliRunner().invoke(cli, ["--help"])
    return {"heavy": sorted({"torch", "transformers", "datasets", "pyarrow"} & set(sys.modules))}
