"""The objectives `text` and `sft`: packed rows in, a causal model out.

In: `packed/*` or `chat/*`, the workspace's tokenizer, and the configuration. Out: an `Objective` that predicts every
token of the rows, or their answers alone.
Invariant: rows belong to the workspace's tokenizer and have one length.
Cost: reads ledgers, and the segments of all rows, about a second per million rows; hashes packed rows that are new.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.errors import TrainError
from corpus.pipeline.progress import SILENT, Progress
from corpus.pipeline.store import wait_for
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger
from corpus.train import networks
from corpus.train.config import TrainConfig
from corpus.train.data.block_order import BlockOrder
from corpus.train.data.collate import Collator
from corpus.train.data.sampler import Order
from corpus.train.evaluation.config import Score
from corpus.train.evaluation.metrics import evaluate, spread, token_sizes
from corpus.train.model import probe
from corpus.train.objective import Figure, Objective, Passes, Result
from corpus.train.run import model_card as cards
from corpus.train.run import packed, packed_splits
from corpus.train.run.packed_splits import Splits
from corpus.train.run.remote_rows import BlockFetch, RemoteRows, fetched
from corpus.train.run.samples import Samples


class PackedRows(Objective):
    """Rows of documents, or of questions and answers.

    Raises:
        WorkspaceError: no dataset is packed, or not the one asked for.
        TokenizerError: rows were packed with another tokenizer than the workspace's.
        DamageError: a file of packed rows is not what its ledger says.
        TrainError: the datasets' rows differ in length, or there are no training rows.

    """

    decides = Figure("bits_per_character")
    collator: Collator
    source: Workspace
    """Where rows and tokenizer are; remote ones stay in the cache while it is referred to."""
    curve: Mapping[str, str] = {}

    def __init__(self, config: TrainConfig, workspace: Workspace, progress: Progress = SILENT) -> None:
        self.config = config
        area = packed.AREAS[config.objective]
        remote = fetched(config, workspace, progress) if config.rows else None
        self.source = workspace = remote or workspace
        ledgers = packed.ledgers(config, workspace, area, progress, remote.later if remote else ())
        vocabulary = packed.vocabulary(workspace)
        packed.check_tokenizers(ledgers, workspace, area)
        self.seq_length, names = _seq_length(ledgers), list(ledgers)
        self.splits = splits = _splits(config, workspace, area, ledgers, progress)
        self.train, self.validation, self.shards = splits.train, splits.validation, splits.shard_rows
        self.rows, self.tokens, self._progress = splits.rows, splits.tokens, progress
        self._fetch: BlockFetch | None = None
        self.inputs = [workspace.file_digest(workspace.root / area / name / LEDGER) for name in names]
        self.inputs += [workspace.file_digest(workspace.tokenizer / "tokenizer.json")]
        self.settings = {
            "datasets": sorted(config.datasets) or names, "document_mask": config.document_mask,
            "seq_length": self.seq_length, "vocab_size": vocabulary.get_vocab_size(),
        }  # fmt: skip
        self.is_chat = config.objective == "sft"
        self.tokenizer = workspace.tokenizer
        self.shape = networks.Shape(
            vocab_size=vocabulary.get_vocab_size(),
            seq_length=self.seq_length,
            separator=packed.special(vocabulary, special_tokens.SEPARATOR),
            pad=packed.special(vocabulary, special_tokens.PAD),
        )
        self.collator = Collator(
            seq_length=self.seq_length,
            pad_id=self.shape.pad,
            separator=self.shape.separator,
            document_mask=config.document_mask,
            answer_after=packed.special(vocabulary, special_tokens.ASSISTANT) if self.is_chat else None,
            question_after=packed.special(vocabulary, special_tokens.USER) if self.is_chat else None,
        )
        self.name = str(networks.described(config)["model"])
        self._sizes = np.zeros((0, 2), np.int64)

    def follow(self, order: Order, workers: int) -> None:
        """Have remote shards fetched ahead, with the shuffle `block`."""
        if isinstance(self.source, RemoteRows) and isinstance(order, BlockOrder):
            self._fetch = self.source.follow(order, self.splits.shards, workers)

    def reading(self, first: int) -> contextlib.AbstractContextManager[Any]:
        """In it remote shards come."""
        return self._fetch.reading(first, self._progress) if self._fetch else contextlib.nullcontext()

    def network(self) -> Any:
        """A causal model."""
        return networks.make(self.config, self.shape, self.tokenizer / "tokenizer.json")

    def sketch(self) -> Any:
        """The same without weights."""
        return networks.sketch(self.config, self.shape)

    def check(self, model: Any) -> None:
        """Refuse a model that would see other documents of its row, and a tokenizer that is not byte-level."""
        self._sizes = token_sizes(self.tokenizer / "tokenizer.json")
        probe.check(model, seq_length=self.seq_length, document_mask=self.config.document_mask)

    def evaluate(self, model: Any, passes: Passes) -> dict[str, Any]:
        """Loss, perplexity, bits per character and per byte; the mean of the bits per character decides."""
        figures: dict[str, float] = {}
        bits: list[float] = []
        for name, rows in self.validation.items():
            score = self._score(model, rows, passes)
            if score.tokens:
                figures |= {f"{name}/{figure}": value for figure, value in score.figures().items()}
                bits.append(score.bits_per_character)
        return figures | {self.decides.name: statistics.fmean(bits)} if bits else {}

    def _score(self, model: Any, rows: Any, passes: Passes) -> Score:
        score = evaluate(
            model,
            rows,
            spread(len(rows), self.config.eval_rows or 0)[passes.rank :: passes.world],
            collator=self.collator,
            sizes=self._sizes,
            rows_per_pass=passes.rows,
            precision=passes.precision,
        )
        if passes.world == 1:
            return score
        sums = np.array([score.nats, score.tokens, score.characters, score.bytes], dtype=np.float64)
        nats, *counts = passes.add(sums).tolist()
        return Score(nats=nats, tokens=int(counts[0]), characters=int(counts[1]), bytes=int(counts[2]))

    def samples(self, model: Any) -> Iterator[Mapping[str, str]]:
        """Continuations of the prompts."""
        prompts = self.config.sample_prompts
        samples = Samples(prompts, self.tokenizer, chat=self.is_chat, context=self.seq_length)
        return samples.write(model, self.config.seed)

    def save(self, folder: Path) -> None:
        """Write the tokenizer, which puts the separator before a text."""
        for name, content in files.of_model(self.tokenizer).items():
            (folder / name).write_bytes(content)

    def documents(self, result: Result) -> Mapping[str, bytes]:
        """The model card."""
        card = cards.model(result.name, result.settings, result.inputs, result.counts)
        return {"README.md": card.encode()}

    def notes(self) -> Sequence[str]:
        """Whether the context is not that of the preset."""
        preset = self.config.preset
        if self.config.is_preset and self.seq_length != preset.context:
            name, paper = self.config.model, preset.context
            return [f"{name} has a context of {paper:,} in its paper, here it has {self.seq_length:,}"]
        return []


def _seq_length(ledgers: Mapping[str, Ledger]) -> int:
    lengths = {name: int(ledger.config["seq_length"]) for name, ledger in ledgers.items()}
    if len(set(lengths.values())) > 1:
        raise TrainError(
            "the datasets were packed to rows of different length: "
            + ", ".join(f"{name} to {length:,}" for name, length in lengths.items()),
            hint="Run `corpus pack` with one --seq-length for all, or name with --dataset those that agree.",
        )
    return next(iter(lengths.values()))


def _splits(
    config: TrainConfig, workspace: Workspace, area: str, ledgers: Mapping[str, Ledger], progress: Progress
) -> Splits:
    """The rows, opened as the shuffle needs them."""
    if config.shuffle == "full":
        return packed_splits.whole(workspace, area, list(ledgers))
    there = packed_splits.head_counts(workspace)
    if not isinstance(workspace, RemoteRows):
        return packed_splits.by_shard(workspace, area, ledgers, counts=there)
    later = workspace.counts(progress)
    return packed_splits.by_shard(
        workspace, area, ledgers, counts=lambda path: later[path] if path in later else there(path),
        await_shard=partial(wait_for, root=workspace.root),
    )  # fmt: skip
