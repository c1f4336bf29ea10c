"""Floors: what is right without a language model, and that nothing favours a position."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from corpus.pipeline.errors import TaskError
from corpus.pipeline.tasks import DEMOS, Item, load, read_all
from corpus.pipeline.tasks.floors import chance, floors, linear, longest, majority, plain, second_only, shared
from tests.support.tasks import FILES, SETS


def item(identity: str, label: int, *texts: str, options: tuple[str, ...] = ()) -> Item:
    return Item(id=identity, texts=texts, label=label, options=options, place="x")


LESSONS = [item(f"{n}", n % 2, f"第{n}天{'下雨' if n % 2 else '晴朗'}，我们{'留在家里' if n % 2 else '出去走走'}。")
           for n in range(20)]  # fmt: skip


CHOICE = [
    item("a", 1, "门口的石榴树", "哪棵？", options=("桃", "石榴", "李子树下")),
    item("b", 0, "猫", options=("猫", "大狗")),
]


def test_majority_says_what_train_says_most() -> None:
    train, test = [item("a", 1, "x"), item("b", 1, "y"), item("c", 0, "z")], [item("d", 0, "v"), item("e", 1, "w")]
    assert majority(train, test).predictions == (1, 1)
    assert majority(train, test).figures.accuracy == 0.5


def test_chance_counts_options() -> None:
    test = [item("a", 0, "x", options=("1", "2")), item("b", 3, "x", options=("1", "2", "3", "4"))]
    assert chance(test).figures.accuracy == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert chance([item("a", 0, "x"), item("b", 2, "y")]).figures.accuracy == pytest.approx(1 / 3)
    assert chance(test).predictions == ()


def test_options_are_chosen_by_length_and_by_shared_characters() -> None:
    assert longest(CHOICE).predictions == (2, 1)
    assert shared(CHOICE).predictions == (1, 0)


def test_ties_favour_no_position() -> None:
    test = [item(str(n), 0, "x", options=("好人", "坏人")) for n in range(400)]
    assert 0.4 < longest(test).figures.accuracy < 0.6
    assert longest(test) == longest(test)


def test_the_linear_model_learns_words_and_nothing_from_test() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    test = [item("t", 0, "今天下雨，留在家里。"), item("u", 1, "今天晴朗，出去走走。")]
    assert linear(LESSONS, test).predictions == (1, 0)
    assert linear(LESSONS, test).predictions == linear(LESSONS, test[::-1]).predictions[::-1]


def test_the_linear_model_sees_what_two_sides_share() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    words = ["苹果甜", "河水凉", "山路远", "灯光暗", "书架高", "面包香", "雨伞小", "围巾暖"]
    train = [item(f"{n}{m}", int(n == m), words[n], words[m]) for n in range(8) for m in {n, (n + 1) % 8}]
    assert linear(train, train).figures.accuracy == 1.0
    assert second_only(train, train).figures.accuracy == 0.5


def test_one_label_in_train_is_what_is_said() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    assert linear([item("a", 1, "x"), item("b", 1, "y")], [item("c", 0, "z")]).predictions == (1,)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction", None)
    with pytest.raises(TaskError) as caught:
        linear(LESSONS, LESSONS)
    assert "pip install 'corpus-zh[tasks]'" in caught.value.hint
    assert [floor.name for floor in plain(load("demo_choice"), [], CHOICE)] == ["chance", "longest", "shared"]
    assert [floor.name for floor in plain(load("demo_similarity"), LESSONS, LESSONS)] == ["chance", "majority"]


@pytest.mark.parametrize("name", DEMOS)
def test_every_kind_has_its_floors(name: str) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    task = load(name)
    splits = read_all(task, None)
    found = {floor.name: floor for floor in floors(task, splits.get("train", []), splits["test"])}
    assert [*found] == {
        "classification": ["chance", "majority", "linear"],
        "entailment": ["chance", "majority", "linear", "second only"],
        "similarity": ["chance", "majority", "linear"],
        "choice": ["chance", "longest", "shared", "linear"],
        "minimal_pairs": ["chance", "longest"],
    }[task.kind]
    assert all(len(floor.predictions) == len(splits["test"]) for floor in found.values() if floor.name != "chance")
    assert all(floor.what for floor in found.values())
    if task.kind in {"classification", "similarity"}:
        assert found["linear"].figures.accuracy > found["majority"].figures.accuracy


@pytest.mark.mirror
@pytest.mark.parametrize(("name", "low", "high"), [("eprstmt", 0.74, 0.80), ("lcqmc", 0.72, 0.77)])
def test_floors_of_real_sets(name: str, low: float, high: float) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is an extra")
    path = Path(SETS / f"{FILES.get(name, name)}.jsonl.xz")
    if not path.is_file():
        pytest.skip("the shared sets are not here")
    splits = read_all(load(name), path)
    assert low < linear(splits["train"], splits["test"]).figures.accuracy < high
