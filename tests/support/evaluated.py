"""Measurements of small models on validation documents, with tokenizers of several kinds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from corpus.pipeline.progress import Progress
from corpus.pipeline.storage.document_shards import parts, read_part
from corpus.pipeline.tokenizer import files
from corpus.pipeline.tokenizer.special_tokens import PAD, SEPARATOR
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.evaluation import stage as score
from corpus.train.evaluation.config import EvaluateConfig, Evaluation
from corpus.train.model.build import make
from corpus.train.presets import PRESETS

NAME = "baike2018qa"
CONTEXT = 32
UNKNOWN = "<unk>"
LENGTHS = (2, 3, 40, 5, 9, 120, 4)
"""Clauses of the answers: documents much longer than a window, and shorter ones."""

torch.set_num_threads(1)


def answer(number: int) -> str:
    clauses = LENGTHS[number % len(LENGTHS)]
    return "，".join(f"第{number * 7 + step}步看{chr(0x4E00 + number * 13 + step)}再动手" for step in range(clauses))


def save_ours(workspace: Workspace, folder: Path) -> None:
    ids = files.load(workspace.tokenizer)
    network = make(
        dataclasses.replace(PRESETS["tiny"], layers=2, width=32, heads=2),
        vocab_size=ids.get_vocab_size(), seq_length=CONTEXT, separator=ids.token_to_id(SEPARATOR) or 0,
        pad=ids.token_to_id(PAD) or 0, dropout=0.1, seed=3,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)  # opinions
    network.save_pretrained(folder)
    for name, content in files.of_model(workspace.tokenizer).items():
        (folder / name).write_bytes(content)


def measure(workspace: Workspace, folder: Path | str = "ours", **settings: Any) -> Evaluation:
    model = workspace.models / folder
    return score.run(EvaluateConfig(model=model, device="cpu", precision="fp32", **settings), workspace)


def validation(workspace: Workspace) -> list[str]:
    """The documents of validation that are used: all but the repeated one, which has the last line."""
    documents: list[tuple[str, str]] = []
    for path in parts(workspace.documents(NAME)):
        for _, _, batch in read_part(path, ["text", "split"]):
            documents += zip(batch["text"].to_pylist(), batch["split"].to_pylist(), strict=True)
    return [text for text, split in documents if split == "validation"][:-1]


def counts(evaluation: Evaluation) -> tuple[int, int, int]:
    total = evaluation.total().score
    return total.tokens, total.characters, total.bytes


class Listener(Progress):
    def __init__(self) -> None:
        self.begun: list[tuple[str, int | None, str]] = []
        self.done = 0

    def begin(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.begun.append((label, total, unit))

    def advance(self, amount: int) -> None:
        self.done += amount


def save_llama(folder: Path, fast: PreTrainedTokenizerFast, *, rows: int | None = None, **settings: Any) -> None:
    torch.manual_seed(5)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(
        vocab_size=rows or len(fast), max_position_embeddings=64, initializer_range=0.3,
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id, **size | settings,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


def fast_tokenizer(core: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, **{f"{name}_token": token for name, token in special.items()})


def byte_level(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with a token that it puts before each text, as Llama 3's."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=["<begin>", "<end>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 0)])
    core.add_tokens(["再动手"])  # an added token that is ordinary text
    return fast_tokenizer(core, bos="<begin>", eos="<end>")
