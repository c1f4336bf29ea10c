"""Scores: sums by a rule written a token at a time, whatever the batch; sizes of tokens from the vocabulary alone."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import GPT2LMHeadModel

from corpus.pipeline.errors import TokenizerError
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.data.collate import Collator, Rows
from corpus.train.evaluation.config import Score
from corpus.train.evaluation.metrics import evaluate, spread, token_sizes
from corpus.train.model.build import make
from corpus.train.presets import PRESETS
from tests.support.packed import (
    SENTENCES,
    SEQ_LENGTH,
    lay_packed,
    lay_tokenizer,
    make_tokenizer,
    pad_id,
    random_segments,
    separator_id,
)


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    """A network with weights large enough to have opinions."""
    network = make(
        dataclasses.replace(PRESETS["tiny"], layers=2, width=64, heads=2),
        vocab_size=make_tokenizer().get_vocab_size(),
        seq_length=SEQ_LENGTH,
        separator=separator_id(),
        pad=pad_id(),
        dropout=0.1,
        seed=3,
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)
    return network


@pytest.fixture
def rows(workspace: Workspace) -> Rows:
    """Nine rows."""
    lay_tokenizer(workspace)
    lay_packed(workspace, "demo", {"validation": random_segments(9, seed=5)})
    return Rows([open_rows(workspace.packed("demo"))["validation"]])


COLLATOR = Collator(seq_length=SEQ_LENGTH, pad_id=pad_id(), separator=separator_id())


def test_sizes_of_tokens_give_the_text_back(workspace: Workspace) -> None:
    lay_tokenizer(workspace)
    sizes = token_sizes(workspace.tokenizer / "tokenizer.json")
    tokenizer = make_tokenizer()
    assert sizes.shape == (tokenizer.get_vocab_size(), 2)
    for text in (*SENTENCES, "没见过的字：𠀀龘é😀", "a\nb\t "):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert sizes[ids].sum(axis=0).tolist() == [len(text), len(text.encode())]
    assert sizes[[separator_id(), pad_id()]].tolist() == [[0, 0], [0, 0]]
    cut = tokenizer.encode("龘", add_special_tokens=False).ids
    assert len(cut) > 1  # a character in several tokens counts once, where it begins
    assert sizes[cut, 0].tolist() == [1] + [0] * (len(cut) - 1)


def test_an_added_token_has_the_size_of_its_text(tmp_path: Path) -> None:
    """A vocabulary may have words put in as they are; only special tokens have no text."""
    tokenizer = Tokenizer.from_str(make_tokenizer().to_str())
    tokenizer.add_tokens(["豆腐脑"])
    tokenizer.add_special_tokens(["<|tool|>"])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    sizes = token_sizes(path)
    assert sizes[tokenizer.token_to_id("豆腐脑")].tolist() == [3, 9]
    assert sizes[tokenizer.token_to_id("<|tool|>")].tolist() == [0, 0]
    ids = tokenizer.encode("卖豆腐脑啦", add_special_tokens=False).ids
    assert tokenizer.token_to_id("豆腐脑") in ids
    assert sizes[ids].sum(axis=0).tolist() == [5, 15]


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.BPE({"词": 0}, [])).save(str(path))
    with pytest.raises(TokenizerError, match="not a byte-level tokenizer"):
        token_sizes(path)


def test_against_documents_one_by_one(workspace: Workspace, rows: Rows, model: GPT2LMHeadModel) -> None:
    """Each document alone in the model, each token looked up: the same nats, characters and bytes."""
    sizes = token_sizes(workspace.tokenizer / "tokenizer.json")
    nats, tokens, characters, size = 0.0, 0, 0, 0
    model.eval()
    for row in random_segments(9, seed=5):
        for segment in row:
            with torch.no_grad():
                logits = model(torch.tensor([[separator_id(), *segment]])).logits[0].double().log_softmax(-1)
            for place, token in enumerate(segment):
                nats -= logits[place, token].item()
            tokens += len(segment)
            text = segment[:-1]  # the separator has no text
            characters += int(sizes[text, 0].sum())
            size += int(sizes[text, 1].sum())
    score = evaluate(model, rows, range(9), collator=COLLATOR, sizes=sizes, rows_per_pass=4)
    assert (score.tokens, score.characters, score.bytes) == (tokens, characters, size)
    assert score.nats == pytest.approx(nats, rel=1e-5)
    assert score.loss == pytest.approx(nats / tokens, rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert score.bits_per_character == pytest.approx(nats / characters / math.log(2), rel=1e-5)
    assert score.bits_per_byte == pytest.approx(nats / size / math.log(2), rel=1e-5)


def test_the_batch_changes_nothing(workspace: Workspace, rows: Rows, model: GPT2LMHeadModel) -> None:
    sizes = token_sizes(workspace.tokenizer / "tokenizer.json")
    scores = [
        evaluate(model, rows, range(9), collator=COLLATOR, sizes=sizes, rows_per_pass=size) for size in (1, 2, 4, 9)
    ]
    for score in scores[1:]:
        assert score.nats == pytest.approx(scores[0].nats, rel=1e-6)
        assert (score.tokens, score.characters, score.bytes) == (
            scores[0].tokens,
            scores[0].characters,
            scores[0].bytes,
        )


def test_shares_add_up_and_half_precision_is_near(workspace: Workspace, rows: Rows, model: GPT2LMHeadModel) -> None:
    sizes = token_sizes(workspace.tokenizer / "tokenizer.json")
    whole = evaluate(model, rows, range(9), collator=COLLATOR, sizes=sizes, rows_per_pass=3)
    shares = [
        evaluate(model, rows, np.arange(9)[rank::2], collator=COLLATOR, sizes=sizes, rows_per_pass=3)
        for rank in range(2)
    ]
    together = shares[0] + shares[1]
    assert together.nats == pytest.approx(whole.nats, rel=1e-6)
    assert (together.tokens, together.characters, together.bytes) == (whole.tokens, whole.characters, whole.bytes)
    half = evaluate(model, rows, range(9), collator=COLLATOR, sizes=sizes, rows_per_pass=3, precision="bf16")
    assert half.nats == pytest.approx(whole.nats, rel=0.02)
    assert half.nats != whole.nats


def test_the_model_keeps_its_mode_and_the_random_state(
    workspace: Workspace, rows: Rows, model: GPT2LMHeadModel
) -> None:
    sizes = token_sizes(workspace.tokenizer / "tokenizer.json")
    state = torch.get_rng_state()
    for mode in (True, False):
        model.train(mode)
        evaluate(model, rows, range(2), collator=COLLATOR, sizes=sizes, rows_per_pass=2)
        assert model.training is mode
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_spread_rows() -> None:
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, 8).tolist() == [0, 1, 2]
    assert spread(5, 0).tolist() == [0, 1, 2, 3, 4]
    assert spread(0, 4).tolist() == []


def test_figures_of_nothing_are_infinite_not_an_error() -> None:
    score = Score(nats=0.0, tokens=0, characters=0, bytes=0)
    assert set(score.figures()) == {"loss", "perplexity", "bits_per_character", "bits_per_byte"}
    assert score.bits_per_byte == math.inf
    assert json.dumps(Score(nats=1e6, tokens=1, characters=1, bytes=1).figures())  # no overflow either
