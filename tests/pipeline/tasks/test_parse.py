"""Task files: those in the package, and every way in which one can be wrong."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from corpus.pipeline.errors import TaskError
from corpus.pipeline.tasks import DEMOS, KINDS, TASKS, load, parse
from tests.support.records import ROOT
from tests.support.tasks import TASK

CHOICE = """\
name = "lunch"
kind = "choice"

[fields]
context = "passage"
question = "ask"
options = ["A", "B"]
label = "key"

[source.test]

[prompt]
answers = ["{option}"]

[prompt.cases]
why = "{context}\\n为什么："
"""


@pytest.mark.parametrize("name", TASKS)
def test_built_in_tasks_say_what_they_are(name: str) -> None:
    task = load(name)
    assert task.name == name
    assert task.title
    assert task.summary
    assert task.licence
    assert task.homepage.startswith("http") or name in DEMOS
    assert bool(task.source.path) == (name in DEMOS)
    assert task.prompt is not None
    assert "test" in task.source.splits
    assert {role for role in KINDS[task.kind][0] if role != "options" or not task.options} <= set(task.fields)


def test_a_task_of_ones_own_needs_little(tmp_path: Path) -> None:
    path = tmp_path / "lunch.toml"
    path.write_text(CHOICE, encoding="utf-8")
    task = load(str(path))
    assert (task.title, task.licence, task.cut, task.metric, task.file) == (
        "lunch", "not stated", "context", "accuracy", path,
    )  # fmt: skip
    assert (task.options, task.labels, task.names, task.is_trainable) == (("A", "B"), (), (), False)


def test_the_examples_in_the_docs_are_task_files() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = [parse(block, where="tasks.md", file=Path("tasks.md")) for block in blocks]
    assert [task.name for task in found] == ["reviews", "why", "ocnli-published"]
    known = set(re.findall(r"^\| `(\w+)` \| \w+[, ]", text, re.MULTILINE))
    assert {*TASKS} - {*DEMOS} <= known


def test_labels_may_be_numbers_and_truth_values() -> None:
    task = parse(TASK.replace('["dry", "wet"]', "[0, true]"), where="x.toml", file=Path("x.toml"))
    assert task.labels == ("0", "true")


def test_names_are_the_labels_where_none_are_given() -> None:
    task = parse(TASK.replace('names = ["晴", "雨"]\n', ""), where="x.toml", file=Path("x.toml"))
    assert task.names == ("dry", "wet")


@pytest.mark.parametrize(
    ("text", "old", "new", "says"),
    [
        (TASK, 'name = "weather"', 'name = "Weather"', "x.toml:1: name: 'Weather' is not a task's name"),
        (TASK, 'kind = "classification"', 'kind = "essay"', "x.toml:2: kind: 'essay' is not classification"),
        (TASK, 'kind = "classification"', "", "kind: is missing"),
        (TASK, '["dry", "wet"]', '["dry"]', "x.toml:3: labels: at least two"),
        (TASK, '["dry", "wet"]', '["dry", "dry"]', "x.toml:3: labels: 'dry' stands more than once"),
        (TASK, '["dry", "wet"]', '["dry", {}]', "x.toml:3: labels: must be a list of words"),
        (TASK, '["晴", "雨"]\n\n', '["晴"]\n\n', "x.toml:4: names: there are 1 names for 2 labels"),
        (TASK, "names =", "name_s =", "x.toml:4: name_s: unknown key; did you mean names?"),
        (TASK, 'text = "text"', "text = 1", "x.toml:7: fields.text: must be str"),
        (TASK, 'text = "text"', 'text = ""', "x.toml:7: fields.text: must not be empty"),
        (TASK, 'text = "text"', 'text = "{a"', "x.toml:7: fields.text: '{a' has a brace without its other half"),
        (TASK, 'id = "id"', 'idd = "id"', "x.toml:9: fields.idd: unknown key; did you mean id?"),
        (TASK, 'split_field = "split"', "", "source.split_field: is missing: [source.train] names values of it"),
        (TASK, 'values = ["test"]', 'values = ["train"]', "x.toml:19: source.test.values: [source.test] and"),
        (TASK, 'values = ["test"]', 'held_out_of = "dev"', "x.toml:19: source.test.held_out_of: 'dev' is not train"),
        (TASK, 'values = ["test"]', 'held_out_of = "test"\nshare = 0.1', "'test' is no split with items of its own"),
        (TASK, 'values = ["test"]', 'held_out_of = "train"', "source.test.share: 0 is not a share between 0 and 1"),
        (TASK, 'values = ["test"]', 'share = 0.1', "x.toml:19: source.test.share: needs held_out_of"),
        (TASK, 'values = ["test"]', 'held_out_of = "train"\nshare = 0.1\nvalues = ["a"]', "excludes values and files"),
        (TASK, "[source.test]", "[source.testing]", "source.testing: unknown key; did you mean test?"),
        (TASK, "{text}\\n天气：", "天气：{text}", "x.toml:22: prompt.context: must end in punctuation or a line break"),
        (TASK, "{text}\\n天气：", "{title}：", "x.toml:22: prompt.context: {title} is not known here; it may name"),
        (TASK, "{text}\\n天气：", "", "x.toml:22: prompt.context: is missing"),
        (TASK, 'answers = ["晴", "雨"]', 'answers = ["晴"]', "x.toml:23: prompt.answers: there are 1 answers for 2"),
        (TASK, 'answers = ["晴", "雨"]', 'answers = ["晴", ""]', "x.toml:23: prompt.answers: an answer is empty"),
        (TASK, 'answers = ["晴", "雨"]', 'answers = ["晴", "雨"]\ngap = "_"', "x.toml:24: prompt.gap: stands in the"),
        (TASK, 'answers = ["晴", "雨"]', 'answers = ["晴", "雨"]\nwithout = "{text}："', "without: {text} is not"),
        (CHOICE, "{option}", "{text}", 'prompt.answers: must be ["{option}"] or ["{letter}"]'),
        (CHOICE, "为什么：", "为什么", "x.toml:16: prompt.cases.why: must end in punctuation"),
        (CHOICE, "[source.test]", "[source]", "source.test: is missing"),
        (CHOICE, 'kind = "choice"', 'kind = "choice"\ncut = "text"', "x.toml:3: cut: 'text' is not context or"),
        (CHOICE, 'kind = "choice"', "kind = ", "x.toml is not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_line_and_key(text: str, old: str, new: str, says: str) -> None:
    assert old in text
    with pytest.raises(TaskError) as caught:
        parse(text.replace(old, new), where="x.toml", file=Path("x.toml"))
    assert says in caught.value.message
    assert "docs/tasks.md" in caught.value.hint


def test_every_problem_is_told_at_once() -> None:
    text = TASK.replace('id = "id"', 'idd = "id"').replace("天气：", "天气").replace('"wet"]', '"dry"]')
    with pytest.raises(TaskError) as caught:
        parse(text, where="x.toml")
    assert len(caught.value.message.splitlines()) == 3 + len(("title", "summary", "licence", "citation", "homepage"))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("weather", None, "there is no task called"),
        ("no.toml", None, "no.toml cannot be read: No such file"),
        ("x.toml", "天气".encode("gb18030"), "x.toml is not UTF-8"),
    ],
)
def test_what_is_no_task_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(TaskError, match=says):
        load(name)


def test_tasks_are_values() -> None:
    assert load("ocnli") == load("ocnli")
    assert dataclasses.replace(load("ocnli"), name="x") != load("ocnli")
