"""Questions of items, and the examples before them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corpus.pipeline import tasks
from corpus.pipeline.errors import BenchmarkError
from corpus.pipeline.manifest.schema import Split
from corpus.train.benchmarks.prompts import CONTENT_FREE, Question, ask
from corpus.train.benchmarks.shots import draw, of_group


def asked(name: str, split: Split = "test") -> list[Question]:
    task = tasks.load(name)
    return [ask(task, item) for item in tasks.read(task, None, split)]


def test_order_of_a_pair_follows_its_id() -> None:
    task = tasks.load("demo_minimal_pairs")
    items = tasks.read(task, None, "test")
    questions = [ask(task, item) for item in items]
    assert {question.label for question in questions} == {0, 1}
    for item, question in zip(items, questions, strict=True):
        good, bad = item.options
        assert question.answers[question.label] == good
        assert question.answers[1 - question.label] == bad
        assert question.context == ""
    assert [ask(task, replace(item, options=item.options[::-1])).label for item in items] == [
        question.label for question in questions
    ]


def test_inputs_without_content_stand_in_the_place_of_the_item() -> None:
    task = tasks.load("demo_classification")
    item = tasks.read(task, None, "test")[0]
    question = ask(task, item)
    assert [question.context.replace(item.texts[0], free) for free in CONTENT_FREE] == list(question.content_free)
    assert question.without
    assert item.texts[0] not in question.without


def test_items_with_options_of_their_own_have_no_inputs_without_content() -> None:
    assert all(question.content_free == () for question in asked("demo_choice"))


def test_examples_depend_on_seed_and_draw_and_fewer_are_the_first_of_more() -> None:
    pool = asked("demo_entailment", "train")

    def ids(seed: int, number: int, shots: int) -> list[str]:
        return [each.id for each in draw(pool, name="x", seed=seed, number=number, shots=shots)[""]]

    assert ids(1, 0, 4) == ids(1, 0, 4)
    assert ids(1, 0, 2) == ids(1, 0, 4)[:2]
    assert len({tuple(ids(seed, number, 4)) for seed in (1, 2) for number in range(3)}) == 6
    assert len(set(ids(1, 0, len(pool)))) == len(pool)


def test_examples_of_a_group_come_from_it_where_it_has_enough() -> None:
    pool = [
        Question(id=f"{group}{number}", group=group, context="c", answers=("a", "b"), label=0)
        for group, many in (("law", 5), ("art", 1))
        for number in range(many)
    ]
    drawn = draw(pool, name="x", seed=1, number=0, shots=2, groups=("law", "art", "tax"))
    assert {each.group for each in of_group(drawn, "law")} == {"law"}
    assert of_group(drawn, "art") == of_group(drawn, "tax") == drawn[""]
    assert len(drawn[""]) == 2


def test_more_examples_than_there_are() -> None:
    with pytest.raises(BenchmarkError, match="x has 0 items to draw examples from, --shots asks for 1"):
        draw([], name="x", seed=1, number=0, shots=1)
