"""`corpus tasks`: the list, a task with its items, and what is said of files that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus.pipeline.tasks import DEMOS, TASKS
from tests.support.command import corpus
from tests.support.records import lines
from tests.support.tasks import ITEMS, lay_task


def test_the_list_names_every_task(tmp_path: Path) -> None:
    text = corpus("tasks", folder=tmp_path).stdout
    assert [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0] in TASKS] == [*TASKS]
    found = json.loads(corpus("tasks", "--json", folder=tmp_path).stdout)
    assert [task["name"] for task in found] == [*TASKS]
    assert [task["name"] for task in found if not task["needs_data"]] == [*DEMOS]
    assert all(task["licence"] and task["prompt"] for task in found)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("demo_classification", ["求助 20, 分享 20", "input: <|start|> 谁家有多余", "prompt: 群里的消息：谁家"]),
        ("demo_entailment", ["成立 14", "。 <|delimiter|> 柜子里有樟脑。 <|extract|>", "    or: 不一定"]),
        ("demo_similarity", ["不同 20, 相同 20", "and: <|start|> 白衬衣沾了油，用什么能洗干净？ <|delimiter|> 怎样"]),
        ("demo_choice", ["option 1 14", "input 3: <|start|> 小梅", "⏎问：小梅最后去了哪里？⏎答：", "    or: 药店"]),
        ("demo_minimal_pairs", ["test: 40 items; 5 groups", "better: 我家养了一只猫。", "worse: 我家养了一辆猫。"]),
    ],
)  # fmt: skip
def test_a_task_is_shown_as_models_see_it(tmp_path: Path, name: str, says: list[str]) -> None:
    text = corpus("tasks", "show", name, folder=tmp_path).stdout
    assert [line for line in says if line not in text] == []
    assert "stand in train" not in text
    found = json.loads(corpus("tasks", "show", name, "--json", folder=tmp_path).stdout)
    assert len(found["items"]) == 3
    assert found["splits"]["test"]["items"] == (40 if name == "demo_minimal_pairs" else 12)


def test_test_items_that_stand_in_train_are_counted(tmp_path: Path) -> None:
    path = lay_task(tmp_path, [*ITEMS, {**ITEMS[0], "split": "test", "id": "d"}])
    assert "1 of 2 test items stand in train" in corpus("tasks", "show", path, folder=tmp_path).stdout
    assert json.loads(corpus("tasks", "show", path, "--json", folder=tmp_path).stdout)["leaked"] == {"d": "a"}


def test_a_task_without_its_data_is_shown_and_says_so(tmp_path: Path) -> None:
    text = corpus("tasks", "show", "ocnli", folder=tmp_path).stdout
    assert "entailment (蕴含), neutral (中立), contradiction (矛盾)" in text
    assert "Give its data with --data FILE" in text
    records = [{"id": str(n), "split": split, "premise": f"第{n}天下雨。", "hypothesis": "地湿了。", "label": "neutral",
                "genre": "lit", "premise_id": n} for n in range(40) for split in ("train", "validation")]  # fmt: skip
    (tmp_path / "ocnli.jsonl").write_bytes(lines(records))
    assert (
        "test: 40 items: 中立 40; 1 group\n"
        in corpus("tasks", "show", "ocnli", "--data", "ocnli.jsonl", folder=tmp_path).stdout
    )


def test_a_file_is_checked_with_its_data(tmp_path: Path) -> None:
    path = lay_task(tmp_path)
    assert (
        f"{path}: task weather, classification, train 2, test 1"
        in corpus("tasks", "check", path, folder=tmp_path).stdout
    )
    found = json.loads(corpus("tasks", "check", path, "--json", folder=tmp_path).stdout)
    assert found["splits"]["train"] == {"items": 2, "labels": {"晴": 1, "雨": 1}, "groups": 0}


@pytest.mark.parametrize(
    ("command", "changes", "says"),
    [
        (["check"], {'kind = "classification"': 'kind = "classify"'}, "weather.toml:2: kind: 'classify' is not"),
        (["check"], {'"wet"]': '"damp"]'}, "weather.jsonl:2: label 'wet' of field 'label' is not known: the task has"),
        (["show"], {'text = "text"': 'text = "txt"'}, "weather.jsonl:1: field 'txt' (text) is missing; the record has"),
        (["show"], {'values = ["test"]': 'values = ["eval"]'}, "empty: no record has split = eval; found train (2)"),
        (["show", "--data", "no.jsonl"], {}, "no.jsonl is not there"),
    ],
)
def test_what_is_wrong_ends_in_one_line(tmp_path: Path, command: list[str], changes: dict[str, str], says: str) -> None:
    path = lay_task(tmp_path, changes=changes)
    done = corpus("tasks", *command, path, folder=tmp_path, code=1)
    (first, *_) = done.stderr.splitlines()
    assert says in first
    assert done.stdout == ""


@pytest.mark.parametrize(("name", "says"), [("ocnlii", "there is no task called"), ("no.toml", "cannot be read")])
def test_an_unknown_task_is_told(tmp_path: Path, name: str, says: str) -> None:
    assert says in corpus("tasks", "show", name, folder=tmp_path, code=1).stderr
