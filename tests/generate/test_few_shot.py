"""What the model reads before a question: exactly the tokens with which documents of training begin."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from transformers import PreTrainedTokenizerFast

from corpus.generate.config import Finish, Piece, SampleConfig
from corpus.generate.few_shot import PLAIN, answered, without_blanks
from corpus.generate.stage import stream
from corpus.pipeline import manifest
from corpus.pipeline.errors import ModelError
from corpus.pipeline.templates import composer, question_prompt, translation_prompt
from corpus.pipeline.tokenizer import trainer
from corpus.pipeline.tokenizer.special_tokens import SEPARATOR
from tests.support.sampling import random_model, script_model, texts

QUESTIONS = ("蜡烛为什么会变短？", "Is it raining", "第3个问题", "换行\n的问题：")
ANSWERS = ("因为它在烧。", "Yes, it is.", "42", "“是的”", "（一）先看天\n（二）再看地", "🙂")
ENGLISH = ("The library opens at nine.", "He paid 30", "Is it, perhaps, late?")
CHINESE = ("图书馆九点开门。", "30 元", "“晚了吗？”", "（晚）", "OK 吗？", "🙂")


def documents(dataset: str, pairs: list[tuple[str, str]]) -> list[str]:
    """What the pipeline makes of records with these two parts."""
    (shape, *_) = manifest.load(dataset).shapes.values()
    compose = composer(shape)
    middle = [""] if shape.form == "question" else []
    return [compose([first, *middle, second])[0] for first, second in pairs]


def test_a_question_is_the_beginning_of_its_document() -> None:
    model = random_model()
    pairs = list(itertools.product(QUESTIONS, ANSWERS))
    form = answered(pairs, question_prompt)
    assert list(form.shots) == documents("baike2018qa", pairs)
    encode = answered([], question_prompt).encoder(model)
    for (question, _), document in zip(pairs, form.shots, strict=True):
        ids = encode(question)
        assert model.encode(document)[: len(ids)] == ids


def test_an_english_text_is_the_beginning_of_its_document() -> None:
    """In a document the blank before the Chinese belongs to its first token, so the prompt must not hold it."""
    pairs = list(itertools.product(ENGLISH, CHINESE))
    trained = trainer.train(documents("translation2019zh", pairs) * 5, 400)
    model = dataclasses.replace(random_model(), tokenizer=PreTrainedTokenizerFast(tokenizer_object=trained))
    form = answered(pairs, translation_prompt)
    assert list(form.shots) == documents("translation2019zh", pairs)
    encode = answered([], translation_prompt).encoder(model)
    broken = 0
    for (english, _), document in zip(pairs, form.shots, strict=True):
        ids, whole = encode(english), model.encode(document)
        assert whole[: len(ids)] == ids
        with_blank = model.encode(translation_prompt(english))
        broken += whole[: len(with_blank)] != with_blank
    assert broken, "with the blank it would have been the same: this would prove nothing"


def test_examples_are_documents_each_with_the_separator_after_it() -> None:
    model = random_model(128)
    form = answered([("雨停了吗？", "停了。"), (f"{SEPARATOR}是什么？", "是记号。")], question_prompt)
    ids = form.encoder(model)("风呢？")
    first, second = model.encode("雨停了吗？\n停了。"), model.encode(f"{SEPARATOR}是什么？\n是记号。")
    assert ids == [*first, model.separator, *second, model.separator, *model.encode("风呢？\n")]
    assert ids.count(model.separator) == 2


def test_plain_is_the_prompt_as_it_is() -> None:
    model = random_model()
    assert PLAIN.encoder(model)("雨 \n") == model.encode("雨 \n")
    pieces = [Piece(prompt=0, sample=0, text=" \n")]
    assert list(PLAIN.answers(pieces)) == pieces


def test_examples_that_leave_no_room_are_refused() -> None:
    form = answered([("雨停了吗？", "停了。" * 20)], question_prompt)
    with pytest.raises(ModelError, match="the 1 examples have") as caught:
        form.encoder(random_model(32))
    assert "--shots" in caught.value.hint


def test_an_answer_has_no_blanks_before_it() -> None:
    a, b, newline, blank = (random_model().encode(text)[0] for text in ("a", "b", "\n", " "))
    model = script_model({newline: blank, blank: a, a: b, b: 0})
    config = SampleConfig(prompts=("问",), temperature=0)
    form = answered([], question_prompt)
    assert [piece.text for piece in stream(model, config, form=form)] == ["a", "b", ""]
    assert texts(model, SampleConfig(prompts=("问\n",), temperature=0))[0, 0][0] == " ab"


def test_blanks_go_at_the_beginning_of_each_sample_alone() -> None:
    finish = Finish(reason="stop", prompt_tokens=1, tokens=1, logprob=0.0, seconds=1.0)
    given = [
        Piece(prompt=prompt, sample=sample, text=text, finish=finish if prompt else None)
        for prompt, sample, text in (
            (0, 0, "\n "), (0, 1, " a "), (0, 0, " b"), (0, 1, " c"), (0, 0, "\n"), (1, 0, " "),
        )
    ]  # fmt: skip
    assert [(piece.prompt, piece.sample, piece.text) for piece in without_blanks(given)] == [
        (0, 1, "a "), (0, 0, "b"), (0, 1, " c"), (0, 0, "\n"), (1, 0, ""),
    ]  # fmt: skip
