"""`corpus tasks`: labelled sets, built-in or of one's own; what is in them, and how a model is asked about them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from corpus.pipeline.terminal import console

if TYPE_CHECKING:
    from corpus.pipeline.manifest import Split
    from corpus.pipeline.tasks import Item, Task

_SHOWN = 300
"""Characters of a text that are shown."""
_ITEMS = 3
"""Items that are shown."""
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The task's data: a file, a folder or a zip. Tasks that bring their own need none.",
)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def tasks(context: click.Context, as_json: bool) -> None:
    """List labelled sets for fine-tuning and benchmarks.

    A task file says where the items lie, what their fields are and how a model without training is asked. The public
    sets below come without their data: fetch a file and name it with --data. The demo_ tasks bring their own.

    \b
    Examples:
      corpus tasks
      corpus tasks show demo_entailment
      corpus tasks show ocnli --data ocnli.jsonl.xz
      corpus tasks check mine.toml
    """
    if context.invoked_subcommand is not None:
        return
    from corpus.pipeline.tasks import TASKS, load

    found = [load(name) for name in TASKS]
    if as_json:
        console.write(json.dumps([_described(task) for task in found], ensure_ascii=False, indent=2))
        return
    console.table(
        ("task", "kind", "trains", "prompt", "data", "fields", "licence"),
        [
            (
                task.name, task.kind, "yes" if task.is_trainable else "-", "yes" if task.prompt else "-",
                "built in" if task.source.path else "--data", ", ".join(_roles(task)), task.licence,
            )
            for task in found
        ],
        left=7,
        spare=("fields", "trains", "prompt"),
    )  # fmt: skip
    console.write("`corpus tasks show NAME` shows one; docs/tasks.md says where to get the data.")


@tasks.command()
@click.argument("task", metavar="NAME|FILE")
@data_option
@json_option
def show(task: str, data: Path | None, as_json: bool) -> None:
    """Show a task: its fields, its counts by split and label, and three items.

    Each item is shown as fine-tuning reads it, and as the prompt that a model without training is asked. Test items
    that stand in train are counted. Without data only the task itself is shown.

    \b
    Examples:
      corpus tasks show demo_choice
      corpus tasks show c3 --data c3_dialogue.jsonl.xz
      corpus tasks show mine.toml
    """
    from corpus.pipeline.tasks import load, read_all
    from corpus.pipeline.tasks.leaks import within

    found = load(task)
    splits = read_all(found, data) if data is not None or found.source.path else {}
    leaked = within(splits["train"], splits["test"]) if {"train", "test"} <= splits.keys() else {}
    if as_json:
        items = [_shown(found, item) for item in _first(splits)]
        described = {**_described(found), "splits": _counts(found, splits), "leaked": dict(leaked), "items": items}
        console.write(json.dumps(described, ensure_ascii=False, indent=2))
        return
    for line in (*_about(found), *_contents(found, splits)):
        console.write(line)
    if leaked:
        number, total = len(leaked), len(splits["test"])
        console.write(f"{number:,} of {total:,} test items stand in train: figures are given with and without them.")
    if not splits:
        console.write("Give its data with --data FILE to see counts and items.")


@tasks.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@data_option
@json_option
def check(file: Path, data: Path | None, as_json: bool) -> None:
    """Say what is wrong in a task file, and in its data, by file and line.

    \b
    Example:
      corpus tasks check mine.toml
    """
    from corpus.pipeline.errors import TaskError
    from corpus.pipeline.tasks import ask, load, read_all

    if not file.exists():
        raise TaskError(f"{file} is not there", hint="Give the path of a task file; docs/tasks.md shows one.")
    found = load(str(file))
    splits = read_all(found, data) if data is not None or found.source.path else {}
    for item in (item for items in splits.values() for item in items if found.prompt):
        ask(found, item)
    if as_json:
        console.write(json.dumps({**_described(found), "splits": _counts(found, splits)}, ensure_ascii=False, indent=2))
        return
    counts = ", ".join(f"{split} {len(items):,}" for split, items in splits.items())
    console.write(f"{file}: task {found.name}, {found.kind}, {counts or 'data not looked into: give --data FILE'}")
    if found.prompt is None:
        console.write("It has no prompt: only a model trained on it can be asked. Add [prompt] to change that.")
    if "train" not in found.source.splits and found.kind != "minimal_pairs":
        console.write("It has no split train: no model can be trained on it, and prompts have no examples.")
    if found.licence == "not stated":
        console.write("It states no licence.")


def _roles(task: Task) -> list[str]:
    """The names of a kind that the task has fields for."""
    return [*task.fields, *(["options"] if task.options else [])]


def _described(task: Task) -> dict[str, Any]:
    """A task as JSON."""
    return {
        "name": task.name, "title": task.title, "kind": task.kind, "summary": task.summary, "licence": task.licence,
        "homepage": task.homepage, "citation": task.citation,
        "fields": {**task.fields, **({"options": list(task.options)} if task.options else {})},
        "labels": list(task.labels), "names": list(task.names), "metric": task.metric, "trainable": task.is_trainable,
        "prompt": task.prompt is not None, "needs_data": not task.source.path,
    }  # fmt: skip


def _counts(task: Task, splits: dict[Split, list[Item]]) -> dict[str, dict[str, Any]]:
    """Items and labels of each split."""
    return {
        split: {"items": len(items), "labels": _labels(task, items), "groups": _groups(items)}
        for split, items in splits.items()
    }


def _groups(items: list[Item]) -> int:
    return len({item.group for item in items} - {""})


def _labels(task: Task, items: list[Item]) -> dict[str, int]:
    """Items by label; of a choice by the position of the right option."""
    counts = Counter(item.label for item in items)
    return {_name(task, label): counts[label] for label in sorted(counts)}


def _name(task: Task, label: int) -> str:
    return task.names[label] if task.names else f"option {label + 1}"


def _about(task: Task) -> Iterator[str]:
    yield f"{task.title}: {task.summary}" if task.summary else task.title
    yield f"kind {task.kind}, metric {task.metric}, licence: {task.licence}"
    if task.citation:
        yield f"source: {task.citation}{f'; {task.homepage}' if task.homepage else ''}"
    fields = {**task.fields, **({"options": ", ".join(task.options)} if task.options else {})}
    yield "fields: " + ", ".join(f"{role} = {json.dumps(field, ensure_ascii=False)}" for role, field in fields.items())
    if task.labels:
        pairs = zip(task.labels, task.names, strict=True)
        yield "labels: " + ", ".join(label if label == name else f"{label} ({name})" for label, name in pairs)


def _contents(task: Task, splits: dict[Split, list[Item]]) -> Iterator[str]:
    """Counts, and the first items of train or test."""
    for split, items in splits.items():
        labels = ", ".join(f"{name} {count:,}" for name, count in _labels(task, items).items())
        groups = _groups(items)
        counted = "" if task.kind == "minimal_pairs" else f": {labels}"
        grouped = f"; {groups} group{'s' if groups > 1 else ''}" if groups else ""
        yield f"{split}: {len(items):,} items{counted}{grouped}"
    for item in _first(splits):
        shown = _shown(task, item)
        yield f"\n--- item {item.id} ({item.place})"
        for form, lines in shown["fine_tuning"].items():
            yield f"{form}: {_short(lines)}"
        yield f"label: {shown['label']}"
        if "prompt" in shown:
            yield f"prompt: {_short(shown['prompt']) or '(empty: each answer begins a document)'}"
            for answer in shown["answers"]:
                yield f"    or: {_short(answer)}"


def _first(splits: dict[Split, list[Item]]) -> list[Item]:
    return (splits.get("train") or splits.get("test") or [])[:_ITEMS]


def _shown(task: Task, item: Item) -> dict[str, Any]:
    """An item as fine-tuning reads it, and as a prompt."""
    from corpus.pipeline.tasks import ask

    shown: dict[str, Any] = {"id": item.id, "fine_tuning": _forms(task, item)}
    shown["label"] = "the first sentence" if task.kind == "minimal_pairs" else _name(task, item.label)
    if task.prompt is not None:
        question = ask(task, item)
        shown |= {"prompt": question.context, "answers": list(question.answers)}
    return shown


def _forms(task: Task, item: Item) -> dict[str, str]:
    """The sequences of GPT-1, figure 1, with the added tokens in angle brackets."""
    if task.kind == "minimal_pairs":
        return {"better": item.options[0], "worse": item.options[1]}
    if task.kind == "similarity":
        first, second = item.texts
        orders = {"input": (first, second), "and": (second, first)}
        return {name: f"<|start|> {one} <|delimiter|> {other} <|extract|>" for name, (one, other) in orders.items()}
    if task.kind == "choice":
        context = "\n".join(text for text in item.texts if text)
        return {
            f"input {number}": f"<|start|> {context} <|delimiter|> {option} <|extract|>"
            for number, option in enumerate(item.options, 1)
        }
    return {"input": f"<|start|> {' <|delimiter|> '.join(item.texts)} <|extract|>"}


def _short(text: str) -> str:
    """A text on one line, its middle left out where it is long."""
    line = text.replace("\n", "⏎")
    half = _SHOWN // 2
    return line if len(line) <= _SHOWN else f"{line[:half]} … {line[-half:]}"
