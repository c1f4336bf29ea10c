"""The input forms of GPT-1, cutting, and the tokenizer that makes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from corpus.pipeline.errors import TokenizerError
from corpus.pipeline.tokenizer.special_tokens import ASSISTANT, SEPARATOR
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.tasks.batches import TaskItems
from corpus.train.tasks.forms import Marks
from corpus.train.tasks.tokens import DELIMITER, EXTRACT, START, TaskTokenizer
from tests.support.task_items import form_of, item

MARKS = Marks(90, 91, 92)
A, B, C, D = [1, 2, 3], [4, 5], [6], [7, 8]


@pytest.mark.parametrize(
    ("kind", "changes", "texts", "options", "expected"),
    [
        ("classification", {}, [A], [], [[90, 1, 2, 3, 92]]),
        ("entailment", {}, [A, B], [], [[90, 1, 2, 3, 91, 4, 5, 92]]),
        ("entailment", {"delimiter": False}, [A, B], [], [[90, 1, 2, 3, 4, 5, 92]]),
        ("similarity", {}, [A, B], [], [[90, 1, 2, 3, 91, 4, 5, 92], [90, 4, 5, 91, 1, 2, 3, 92]]),
        ("similarity", {"both_orders": False}, [A, B], [], [[90, 1, 2, 3, 91, 4, 5, 92]]),
        ("choice", {}, [A, B], [C, D], [[90, 1, 2, 3, 4, 5, 91, 6, 92], [90, 1, 2, 3, 4, 5, 91, 7, 8, 92]]),
    ],
)
def test_forms(
    kind: str, changes: dict[str, bool], texts: list[list[int]], options: list[list[int]], expected: list[list[int]]
) -> None:
    sequences, dropped = form_of(kind, **changes).sequences(texts, options, MARKS, 64)
    assert ([ids.tolist() for ids in sequences], dropped) == (expected, 0)


@pytest.mark.parametrize(
    ("kind", "cut", "context", "expected", "dropped"),
    [
        ("entailment", "premise", 6, [[90, 1, 91, 4, 5, 92]], 2),
        ("entailment", "hypothesis", 6, [[90, 1, 2, 3, 91, 92]], 2),
        ("entailment", "premise", 4, [[90, 91, 4, 92]], 4),  # the whole premise, then of what is left
        ("classification", "text", 4, [[90, 1, 2, 92]], 1),
        # the longest option decides how much of the context all options see
        ("choice", "context", 8, [[90, 1, 4, 5, 91, 6, 92], [90, 1, 4, 5, 91, 7, 8, 92]], 2),
    ],
)
def test_too_long_an_item_is_cut_where_the_task_says(
    kind: str, cut: str, context: int, expected: list[list[int]], dropped: int
) -> None:
    texts, options = ([A] if kind == "classification" else [A, B]), ([C, D] if kind == "choice" else [])
    sequences, lost = form_of(kind, cut=cut).sequences(texts, options, MARKS, context)
    assert ([ids.tolist() for ids in sequences], lost) == (expected, dropped)
    assert max(map(len, sequences)) <= context


def test_cut_items_are_counted(tokenized: Workspace) -> None:
    items = [item("春天的雨" * 40), item("猫")]
    encoded = TaskItems(items, TaskTokenizer(tokenized.tokenizer), form_of("classification"), 16)
    assert (encoded.cut, encoded.longest) == (1, 16)
    assert encoded.cut_tokens == len(TaskTokenizer(tokenized.tokenizer).encode([items[0].texts[0]])[0]) - 14


def test_special_strings_in_a_text_stay_text(tokenized: Workspace, tmp_path: Path) -> None:
    tokenizer = TaskTokenizer(tokenized.tokenizer)
    hostile = f"{EXTRACT}茶{SEPARATOR}{ASSISTANT}{START}{DELIMITER}<|pad|>"
    special = {tokenizer.marks.start, tokenizer.marks.delimiter, tokenizer.marks.extract, tokenizer.pad}
    ids = tokenizer.encode([hostile])[0]
    assert not special & set(ids)
    tokenizer.save(tmp_path, form=form_of("entailment"), context=64)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    assert saved(hostile)["input_ids"] == [tokenizer.marks.start, *ids, tokenizer.marks.extract]


def test_the_saved_tokenizer_makes_the_form(tokenized: Workspace, tmp_path: Path) -> None:
    tokenizer = TaskTokenizer(tokenized.tokenizer)
    for delimiter in (True, False):
        form = form_of("entailment", delimiter=delimiter)
        tokenizer.save(tmp_path, form=form, context=64)
        saved = AutoTokenizer.from_pretrained(tmp_path)
        made = saved([["春天的雨", "猫"], ["茶", "te"]], padding=True)
        assert set(made) == {"input_ids", "attention_mask"}  # GPT-2 would add embeddings of token types
        encoded = TaskItems([item("春天的雨", "猫"), item("茶", "te")], tokenizer, form, 64)
        for row, sequence in zip(made["input_ids"], encoded.encoded, strict=True):
            ids = sequence.sequences[0].tolist()
            assert row == ids + [tokenizer.pad] * (len(row) - len(ids))


def test_pad_is_no_other_token(tokenized: Workspace, tmp_path: Path) -> None:
    """A model whose pad is its end of a text, as GPT-2's tokenizer has it, gets one of its own."""
    other = AutoTokenizer.from_pretrained(tokenized.tokenizer)
    other.pad_token = other.eos_token
    other.save_pretrained(tmp_path)
    tokenizer = TaskTokenizer(tmp_path)
    assert tokenizer.pad != tokenizer.separator
    again = TaskTokenizer(tokenized.tokenizer)
    assert again.tokenizer.convert_ids_to_tokens(again.pad) == "<|pad|>"


def test_no_tokenizer_and_another_models(tokenized: Workspace, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 300}')
    with pytest.raises(TokenizerError, match="holds no fast tokenizer"):
        TaskTokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="the tokenizer has 400 tokens, the model 300: it is another model's"):
        TaskTokenizer(tokenized.tokenizer, rows=300)
