"""Batches: labels, positions and padding by a literal table, and against a rule written a token at a time."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.data.collate import PADDING_TOKENS, Collator, Rows, row_tokens
from tests.support.packed import lay_packed, lay_tokenizer, pad_id, random_segments

# Three rows of 8: two documents and padding, a full row, and segments of one token.
TABLE = [[[5, 6, 7], [8, 9]], [[10, 11, 12, 13, 14, 15, 16, 17]], [[3], [4], [5, 6, 7, 8]]]
PAD = pad_id()
NO = -100


SEP = 0


def lay(workspace: Workspace, rows: list[list[list[int]]], seq_length: int, later: Collection[int] = ()) -> Rows:
    """Write rows and open them as training does."""
    lay_tokenizer(workspace)
    lay_packed(workspace, "demo", {"train": rows}, seq_length=seq_length, later=later)
    return Rows([open_rows(workspace.packed("demo"))["train"]])


def test_literal_batch(workspace: Workspace) -> None:
    """A document is read from the separator on, a later piece (the 8 and the row of 10) from its own first token."""
    rows = lay(workspace, TABLE, 8, later=(1, 2))
    batch = Collator(seq_length=8, pad_id=PAD, separator=SEP)(rows.__getitems__([2, 0, 1]))
    assert batch["input_ids"].tolist() == [
        [SEP, SEP, SEP, 5, 6, 7, PAD, PAD],
        [SEP, 5, 6, 8, 9, PAD, PAD, PAD],
        [10, 11, 12, 13, 14, 15, 16, 17],
    ]
    assert batch["shift_labels"].tolist() == [
        [3, 4, 5, 6, 7, 8, NO, NO],
        [5, 6, 7, 9, NO, NO, NO, NO],
        [11, 12, 13, 14, 15, 16, 17, NO],
    ]
    assert batch["labels"] is batch["shift_labels"]
    assert batch["position_ids"].tolist() == [
        [0, 0, 0, 1, 2, 3, 0, 1],
        [0, 1, 2, 0, 1, 0, 1, 2],
        [0, 1, 2, 3, 4, 5, 6, 7],
    ]
    assert batch["use_cache"] is False
    names = {"input_ids", "labels", "shift_labels", "position_ids", "use_cache"}
    assert set(batch) == names  # an attention mask would undo the isolation
    assert all(value.dtype == torch.int64 for value in batch.values() if isinstance(value, torch.Tensor))


def test_without_the_document_mask(workspace: Workspace) -> None:
    rows = lay(workspace, TABLE, 8)
    batch = Collator(seq_length=8, pad_id=PAD, separator=SEP, document_mask=False)(rows.__getitems__([2, 0]))
    assert batch["input_ids"].tolist() == [[3, 4, 5, 6, 7, 8, PAD, PAD], [5, 6, 7, 8, 9, PAD, PAD, PAD]]
    assert batch["shift_labels"].tolist() == [[4, 5, 6, 7, 8, NO, NO, NO], [6, 7, 8, 9, NO, NO, NO, NO]]
    assert batch["position_ids"].tolist() == [list(range(8))] * 2


def test_no_row_becomes_a_row_of_padding(workspace: Workspace) -> None:
    rows = lay(workspace, TABLE, 8)
    batch = Collator(seq_length=8, pad_id=PAD, separator=SEP)(rows.__getitems__([]))
    assert batch["input_ids"].tolist() == [[PAD] * 8]
    assert batch["labels"].tolist() == [[NO] * 8]


@pytest.mark.parametrize("document_mask", [True, False])
def test_against_the_rule_token_by_token(workspace: Workspace, document_mask: bool) -> None:
    made = random_segments(40, seed=3)
    later = set(range(0, sum(map(len, made)), 3))
    rows = lay(workspace, made, 48, later)
    first_of = np.cumsum([0, *map(len, made)])
    order = np.random.default_rng(0).permutation(40)
    batch = Collator(seq_length=48, pad_id=PAD, separator=SEP, document_mask=document_mask)(rows.__getitems__(order))
    for index, number in enumerate(order):
        ids: list[int] = []
        targets: list[int] = []
        positions: list[int] = []
        for at, segment in enumerate(made[number]):
            whole = document_mask and first_of[number] + at not in later
            positions += range(len(segment)) if document_mask else range(len(ids), len(ids) + len(segment))
            targets += segment if whole else [*segment[1:], NO]
            ids += [SEP, *segment[:-1]] if whole else segment
        if not document_mask:
            targets = [*ids[1:], NO]
        used = len(ids)
        ids += [PAD] * (48 - used)
        targets += [NO] * (48 - used)
        positions += range(48 - used) if document_mask else range(used, 48)
        assert batch["input_ids"][index].tolist() == ids
        assert batch["shift_labels"][index].tolist() == targets
        assert batch["position_ids"][index].tolist() == positions


def test_rows_of_several_datasets_lie_end_to_end(workspace: Workspace) -> None:
    first = lay(workspace, TABLE, 8).table
    rows = Rows([first, first])
    assert len(rows) == 6
    table = rows.__getitems__([4, 0])
    assert isinstance(table, pa.Table)
    assert table["input_ids"].to_pylist() == [list(range(10, 18)), [5, 6, 7, 8, 9, PAD, PAD, PAD]]
    assert rows[4]["input_ids"].to_pylist() == [list(range(10, 18))]


def test_tokens_of_rows_and_of_slices(workspace: Workspace) -> None:
    rows = lay(workspace, TABLE, 8)
    assert row_tokens(rows.__getitems__([0, 1, 2, 0])).tolist() == [5, 8, 6, 5]
    assert row_tokens(rows.table[1:3]).tolist() == [8, 6]


USER, ASSISTANT = 2, 3
# Two turns and padding; a later piece before a turn; a piece that ends with its mark, then its later piece, then a turn
# without a question; an answer in which the mark stands once more, and one that is nothing but its separator.
CHAT = [
    [[USER, 10, 11, ASSISTANT, 20, 0], [USER, 12, ASSISTANT, 21, 22, 0]],
    [[24, 25, 26, 0], [USER, 13, ASSISTANT, 27, 0]],
    [[USER, 14, 15, ASSISTANT], [28, 0], [USER, ASSISTANT, 29, 0]],
    [[USER, 16, ASSISTANT, 30, ASSISTANT, 31, 0], [USER, 17, ASSISTANT, 0]],
]


@pytest.mark.parametrize("document_mask", [True, False])
def test_only_answers_are_learnt(workspace: Workspace, document_mask: bool) -> None:
    rows = lay(workspace, CHAT, 14, later=(2, 5))
    collator = Collator(
        seq_length=14, pad_id=PAD, separator=SEP, document_mask=document_mask, answer_after=ASSISTANT
    )  # fmt: skip
    batch = collator(rows.__getitems__([0, 1, 2, 3]))
    learnt = [
        [NO, NO, NO, NO, 20, 0, NO, NO, NO, 21, 22, 0, NO, NO],
        [NO, NO, NO, NO, NO, NO, NO, 27, 0, NO, NO, NO, NO, NO],
        [NO, NO, NO, NO, NO, NO, NO, NO, 29, 0, NO, NO, NO, NO],
        [NO, NO, NO, 30, ASSISTANT, 31, 0, NO, NO, NO, 0, NO, NO, NO],
    ]
    expected = learnt if document_mask else [[*row[1:], NO] for row in learnt]
    assert batch["shift_labels"].tolist() == expected
    plain = Collator(seq_length=14, pad_id=PAD, separator=SEP, document_mask=document_mask)
    every = plain(rows.__getitems__([0, 1, 2, 3]))
    assert torch.equal(batch["position_ids"], every["position_ids"])
    assert torch.equal(batch["input_ids"], every["input_ids"])
    assert collator(rows.__getitems__([]))["labels"].tolist() == [[NO] * PADDING_TOKENS]


def turns(rows: int, *, seed: int) -> list[list[list[int]]]:
    """Rows of turns of random tokens, now and then a later piece."""
    random = np.random.default_rng(seed)
    made: list[list[list[int]]] = []
    for _ in range(rows):
        row: list[list[int]] = []
        while sum(map(len, row)) < 30:
            question, answer = (random.integers(10, 300, random.integers(1, 7)).tolist() for _ in range(2))
            row.append([*answer, SEP] if random.random() < 0.2 else [USER, *question, ASSISTANT, *answer, SEP])
        made.append(row)
    return made


def test_answers_against_the_rule_token_by_token(workspace: Workspace) -> None:
    made = turns(60, seed=4)
    rows = lay(workspace, made, 48)
    batch = Collator(seq_length=48, pad_id=PAD, separator=SEP, answer_after=ASSISTANT)(rows.__getitems__(range(60)))
    for index, row in enumerate(made):
        labels: list[int] = []
        for segment in row:
            learnt = False
            for token in segment:
                labels.append(token if learnt else NO)
                learnt = learnt or token == ASSISTANT
        assert batch["labels"][index].tolist() == labels + [NO] * (48 - len(labels))


def test_prompt_tokens_carry_no_loss(workspace: Workspace) -> None:
    """The loss and the gradient of a real model are those of the answers, each document alone, summed by hand."""
    made = turns(6, seed=5)
    rows = lay(workspace, made, 48)
    batch = Collator(seq_length=48, pad_id=PAD, separator=SEP, answer_after=ASSISTANT)(rows.__getitems__(range(6)))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300 + 100, n_positions=48, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config).eval()
    weights = list(model.parameters())
    loss = model(**batch).loss
    gradients = torch.autograd.grad(loss, weights)
    nats, tokens = torch.zeros(()), 0
    for segment in (segment for row in made for segment in row if segment[0] == USER):
        logits = model(torch.tensor([[SEP, *segment]])).logits[0].log_softmax(-1)
        for place in range(segment.index(ASSISTANT) + 1, len(segment)):
            nats = nats - logits[place, segment[place]]
            tokens += 1
    assert tokens == int((batch["labels"] != NO).sum())
    assert loss.item() == pytest.approx(nats.item() / tokens, rel=1e-5)
    for packed, alone in zip(gradients, torch.autograd.grad(nats / tokens, weights), strict=True):
        assert torch.allclose(packed, alone, atol=1e-6)
