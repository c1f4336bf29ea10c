"""Training BPE: cutting rare pairs, and the same merges from either trainer."""

from __future__ import annotations

import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.text.codepoints import codes_of
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.tokenizer import trainer as bpe
from corpus.pipeline.tokenizer.stage import TokenizerConfig
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN
from tests.support.records import LayRaw, baike, lines

FAST = bpe.fast_available()
needs_gigabpe = pytest.mark.skipif(not FAST, reason="the extra `fast` is not installed")


def built_in() -> list[str]:
    """The records of the built-in dataset, as they stand in its files."""
    folder = files("corpus.manifests").joinpath("demo")
    return [
        line
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        for line in file.read_text(encoding="utf-8").split("\n")
    ]


def write(path: Path, texts: list[str]) -> Path:
    path.write_bytes("".join(text + "\n" for text in texts).encode())
    return path


def test_rare_pairs_are_cut_and_nothing_else() -> None:
    often, seldom = "春天来了", "甲乙 a甲乙b 12，。乙丙\U00020000\U00020001"
    neighbours = bpe.Neighbours()
    for _ in range(1000):
        neighbours.add(often)
    neighbours.add(seldom)
    size = round(neighbours.characters * bpe.RARE / 5)  # cut what is seen fewer than five times
    assert neighbours.cut(often, size) == often
    cut = neighbours.cut(seldom, size)
    assert cut.replace("\n", "") == seldom
    assert cut.split("\n") == ["甲", "乙 a甲", "乙b 12，。乙", "丙", "\U00020000", "\U00020001"]


def test_counts_are_never_too_low() -> None:
    chance = random.Random(4)
    texts = ["".join(chance.choices("天地玄黄宇宙洪荒日月盈昃", k=200)) for _ in range(50)]
    neighbours = bpe.Neighbours()
    for text in texts:
        neighbours.add(text)
    assert neighbours.characters == 50 * 200
    assert int(neighbours.counts.sum(dtype=np.int64)) == 50 * 199
    exact = sum(text.count("天地") for text in texts)
    slot = bpe.pair_slots(codes_of("天地"))[0][0]
    assert neighbours.counts[slot] >= exact > 0


@needs_gigabpe
@pytest.mark.parametrize("vocab_size", [300, 1200, 60_000])
def test_both_trainers_learn_the_same(vocab_size: int, tmp_path: Path) -> None:
    odd = ["\n\n  two\tblanks ", "ａｂｃ１２３", "😀👍🏽 don't we'll", "<|endoftext|>", " \u3000 ", "a", "\r\n", "ééé"]
    texts = built_in() + odd * 3
    path = write(tmp_path / "sample.txt", texts)
    merges, trainer, why = bpe.merges_of(path, vocab_size, fast=True)
    assert (trainer, why) == (bpe.FAST, "")
    reference, trainer, why = bpe.merges_of(path, vocab_size, fast=False)
    assert trainer == bpe.REFERENCE
    assert "not installed" in why
    assert merges[: len(reference)] == reference
    model = bpe.build(merges, vocab_size)
    assert model.to_str() == bpe.build(reference, vocab_size).to_str()
    for text in texts:
        assert model.decode(model.encode(text).ids) == text


@needs_gigabpe
def test_a_text_with_too_few_entries(tmp_path: Path) -> None:
    path = write(tmp_path / "sample.txt", ["abcd abcd xyz ", " hello hello wor", "山高月小，水落石出。"] * 5)
    made = [bpe.build(bpe.merges_of(path, 1000, fast=fast)[0], 1000) for fast in (True, False)]
    assert made[0].to_str() == made[1].to_str()
    assert 260 < made[0].get_vocab_size() < 1000


@needs_gigabpe
def test_a_trainer_that_disagrees_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "sample.txt", built_in())
    gigabpe = pytest.importorskip("gigabpe")
    honest = gigabpe.train_bpe

    def reversed_merges(*arguments: Any, **named: Any) -> tuple[Any, list[Any]]:
        vocabulary, merges = honest(*arguments, **named)
        return vocabulary, merges[::-1]

    monkeypatch.setattr(gigabpe, "train_bpe", reversed_merges)
    merges, trainer, why = bpe.merges_of(path, 500, fast=True)
    assert trainer == bpe.REFERENCE
    assert "other merges" in why
    assert merges == bpe.merges_of(path, 500, fast=False)[0]


def test_without_the_fast_trainer_the_tokenizer_is_the_same(
    workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(5)
    words = ["春天", "花开", "山前", "水边", "有人", "走来", "说话", "以后", "又到", "江南"]
    records = [baike(n, answer="，".join("".join(chance.choices(words, k=3)) for _ in range(9))) for n in range(400)]
    lay_raw("baike2018qa", {TRAIN: lines(records)})
    ingest.run(IngestConfig(dataset="baike2018qa", workers=1), workspace)
    made: list[bytes] = []
    for in_memory, fast in ((0, FAST), (0, False), (1 << 40, FAST)):
        monkeypatch.setattr(bpe, "fast_available", lambda fast=fast: fast)
        (workspace.tokenizer / "ledger.json").unlink(missing_ok=True)
        tokenizer.run(TokenizerConfig(vocab_size=700), workspace, in_memory_characters=in_memory)
        made.append((workspace.tokenizer / "tokenizer.json").read_bytes())
        assert not list(workspace.tokenizer.glob(".*.tmp"))
    assert made[0] == made[1] == made[2]
    assert Tokenizer.from_str(made[0].decode()).get_vocab_size() == 700
