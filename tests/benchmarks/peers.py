"""Jobs that run the peers, each in a process of its own (`job`), on the same input as ours.

Each does the nearest thing the peer offers, written as its own documentation does. Set-up, imports and the opening of
a tokenizer are not counted; reading the input and writing the output are.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.job import Clock
from tests.benchmarks.ours import _step_tokens

SEPARATOR = "<|endoftext|>"
_FIELDS = {
    # dataset: what its text is made of, its id, the shortest text kept, its training files
    "news2016zh": (("title", "content"), "news_id", 64, "**/news2016zh_*.json"),
    "wiki2019zh": (("title", "text"), "id", 32, "**/wiki_*"),
    "baike2018qa": (("title", "desc", "answer"), "qid", 10, "**/baike_qa_*.json"),
    "webtext2019zh": (("title", "desc", "content"), "answer_id", 10, "**/web_text_zh_*.json"),
}
_REGEXES = (
    (re.compile(r"<[^>]+>"), ""),
    (re.compile(r"&(?:nbsp|amp|lt|gt|quot|#\d+);"), " "),
    (re.compile(r"[ \t\u00a0\u3000]+"), " "),
    (re.compile(r"\n{3,}"), "\n\n"),
)


def datatrove_ingest(clock: Clock, *, source: str, dataset: str, out: str, simplify: bool) -> None:
    """JSON Lines reader, four cleaning regexes (and OpenCC), length filter, Parquet writer."""
    from datatrove.pipeline.filters import LambdaFilter
    from datatrove.pipeline.formatters.base import BaseFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import ParquetWriter

    convert = _opencc() if simplify else None
    fields, id_field, min_length, pattern = _FIELDS[dataset]

    class Clean(BaseFormatter):  # type: ignore[misc]  # datatrove is untyped to us
        """The four regexes."""

        name = "clean"

        def format(self, text: str) -> str:
            for regex, put in _REGEXES:
                text = regex.sub(put, text)
            return convert(text) if convert else text

    def adapt(_: Any, record: dict[str, Any], path: str, number: int) -> dict[str, Any]:
        text = "\n".join(record.pop(field) or "" for field in fields)
        return {"text": text, "id": str(record.pop(id_field)), "metadata": record}

    _empty(out)
    steps = [
        JsonlReader(source, glob_pattern=pattern, adapter=adapt),
        Clean(),
        LambdaFilter(lambda document: len(document.text) >= min_length),
        ParquetWriter(f"{out}/documents"),
    ]
    _run_datatrove(clock, steps, out)


def _run_datatrove(clock: Clock, steps: list[Any], out: str) -> None:
    from datatrove.executor import LocalPipelineExecutor

    executor = LocalPipelineExecutor(
        pipeline=steps, tasks=1, workers=1, logging_dir=f"{out}/logs", skip_completed=False
    )
    with clock:
        executor.run()


def _opencc() -> Any:
    import opencc

    return opencc.OpenCC("t2s").convert


def datatrove_tokens(clock: Clock, *, documents: str, tokenizer: str, out: str) -> None:
    """Parquet reader and DocumentTokenizer, without its second pass that shuffles."""
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    _empty(out)
    steps = [
        ParquetReader(documents, glob_pattern="part-*.parquet", recursive=False, read_metadata=False),
        DocumentTokenizer(
            f"{out}/tokens",
            tokenizer_name_or_path=f"{tokenizer}/tokenizer.json",
            eos_token=SEPARATOR,
            shuffle_documents=False,
            batch_size=1000,
        ),
    ]
    _run_datatrove(clock, steps, out)


def datasets_clm(clock: Clock, *, documents: str, tokenizer: str, out: str, seq_length: int = 1024) -> None:
    """Tokenize and group into blocks with `datasets.map`, as transformers' run_clm example does, and save."""
    import datasets
    from transformers import AutoTokenizer

    encode = AutoTokenizer.from_pretrained(tokenizer)
    _empty(out)
    with clock:
        texts = datasets.load_dataset(
            "parquet",
            data_files=[str(path) for path in sorted(Path(documents).glob("part-*.parquet"))],
            columns=["text"],
            split="train",
            cache_dir=f"{out}/cache",
        )
        tokens = texts.map(lambda batch: encode(batch["text"]), batched=True, remove_columns=["text"])
        tokens.map(lambda batch: _group(batch, seq_length), batched=True).save_to_disk(f"{out}/rows")


_RENEW_CHARACTERS = 64 << 20


def _group(batch: dict[str, list[list[int]]], seq_length: int) -> dict[str, list[list[int]]]:
    """run_clm's own function."""
    joined = {key: list(itertools.chain(*rows)) for key, rows in batch.items()}
    total = len(joined["input_ids"]) // seq_length * seq_length
    made = {key: [row[i : i + seq_length] for i in range(0, total, seq_length)] for key, row in joined.items()}
    made["labels"] = made["input_ids"].copy()
    return made


def raw_kernel(clock: Clock, *, documents: str, tokenizer: str) -> dict[str, int]:
    """Our own encoder alone, on texts in memory as Arrow has them."""
    import pyarrow as pa

    from corpus.pipeline.tokenizer import encoders

    tokens = 0
    batches = [pa.array(batch, pa.string()) for batch in _batches(documents)]
    with clock:
        encode = encoders.make(encoders.KERNEL, Path(tokenizer))
    for batch in batches:
        with clock:
            flat, _ = encode(batch)
        tokens += len(flat)
    return {"tokens": tokens}


def raw_fastokens(clock: Clock, *, documents: str, tokenizer: str) -> dict[str, int]:
    """The fastest encoder of others, alone, on texts in memory."""
    import fastokens

    text = _without_added_tokens(tokenizer)
    tokens = 0
    batches = list(_batches(documents))
    with clock:
        encoder = fastokens.Tokenizer.from_json_str(text)
    for batch in batches:
        with clock:
            flat, _ = encoder.encode_batch_flat(batch)
        tokens += len(flat) // 4
    return {"tokens": tokens}


def raw_gigatoken(clock: Clock, *, documents: str, tokenizer: str) -> dict[str, int]:
    """Another fast encoder alone, on texts in memory; renewed now and then, since its cache grows."""
    import gigatoken

    text = _without_added_tokens(tokenizer)
    batches = list(_batches(documents))
    seen, tokens = _RENEW_CHARACTERS + 1, 0
    for batch in batches:
        with clock:
            if seen > _RENEW_CHARACTERS:
                encoder, seen = gigatoken.Tokenizer.from_json(text), 0
            layout = encoder.encode_batch(batch, parallel=False).layout
        seen += sum(map(len, batch))
        tokens += int(layout.offsets[-1])
    return {"tokens": tokens}


def _without_added_tokens(folder: str) -> str:
    """A tokenizer file for engines that would find special tokens in ordinary text."""
    import json

    description = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    description["added_tokens"] = []
    return json.dumps(description)


def raw_tokenizers(clock: Clock, *, documents: str, tokenizer: str) -> dict[str, int]:
    """`tokenizers` alone, on texts in memory."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    encoder.encode_special_tokens = True
    tokens = 0
    for batch in list(_batches(documents)):
        with clock:
            encodings = encoder.encode_batch_fast(batch, add_special_tokens=False)
        tokens += sum(len(encoding.ids) for encoding in encodings)
    return {"tokens": tokens}


def bpe_trainer(clock: Clock, *, documents: str, like: str, vocab_size: int, out: str) -> dict[str, Any]:
    """`tokenizers`' trainer on all training documents, read as it asks for them, with our split pattern."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    pattern = Tokenizer.from_file(like).pre_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pattern
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SEPARATOR, "<|pad|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with clock:
        texts = (text for batch in _batches(documents, split="train") for text in batch)
        tokenizer.train_from_iterator(texts, trainer=trainer)
    tokenizer.save(out)
    return {"entries": tokenizer.get_vocab_size()}


def _batches(documents: str, *, split: str = "") -> Iterator[list[str]]:
    """Texts, one row group at a time."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for path in sorted(Path(documents).glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["text", "split"])
                if split:
                    table = table.filter(pc.equal(table["split"], split))
                yield table["text"].to_pylist()


def bare_training(clock: Clock, *, workspace: str, model: str, steps: int, warmup: int) -> dict[str, Any]:
    """A PyTorch loop on batches in memory: the same model, batches, optimiser, clipping and type of numbers as ours."""
    import torch

    from corpus.pipeline.workspace.layout import Workspace
    from corpus.train.config import TrainConfig
    from corpus.train.data.mixture import parts
    from corpus.train.data.sampler import Order
    from corpus.train.data.schedule import rate
    from corpus.train.model import build
    from corpus.train.run import plan as plans
    from corpus.train.run.packed_rows import PackedRows

    config = TrainConfig(model=model, max_steps=steps)
    packed = PackedRows(config, Workspace(Path(workspace)))
    plan = plans.make(config, Workspace(Path(workspace)), packed)
    order = Order(
        parts=parts(plan.shares, weighted=config.is_weighted),
        steps=plan.steps,
        micro_batch_size=plan.steps.batch_size,
        seed=config.seed,
    )
    batches = [packed.collator(packed.train.__getitems__(rows)) for rows in order]
    network = build.make(config.preset, **asdict(packed.shape), dropout=plan.settings["dropout"], seed=config.seed)
    network.train()
    weights = list(network.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=plan.settings["learning_rate"], betas=(config.beta1, config.beta2), fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, plan.warmup_steps, plan.steps))
    times = []
    for batch in batches:
        loss = network(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    clock.seconds = times[-1] - times[warmup - 1]
    return {"tokens": (steps - warmup) * _step_tokens(plan.settings), "loss": loss.item()}


def generate(clock: Clock, *, model: str, prompt: str, tokens: int, top_k: int, seed: int) -> dict[str, int]:
    """`model.generate` with the same settings; it may not end early."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    encode = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    network.generation_config.eos_token_id = None
    ids = torch.tensor([encode(prompt, add_special_tokens=False)["input_ids"]])

    def write(most: int) -> Any:
        torch.manual_seed(seed)
        return network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=top_k,
            max_new_tokens=most,
            pad_token_id=encode.pad_token_id,
        )

    write(8)
    with clock:
        made = write(tokens)
    return {"tokens": made.shape[1] - ids.shape[1]}


def _empty(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
