"""Read the items of a task, split by split.

In: a task and its data: a file, a folder or a zip of JSON Lines, JSON, CSV, TSV or Parquet, each also compressed.
Out: the items of one split, in the order of files and records.
Invariants: an item is in one split at most; ids are unique in a split; what is held out is chosen by a hash of the id
or the unit, so it stays when items are added. Every problem names file and line. Records of other splits go
unchecked.
Cost: the decompressed file in memory, about 20 microseconds a record.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from corpus.pipeline.errors import SourceError, TaskError
from corpus.pipeline.manifest import Split
from corpus.pipeline.read.items import ItemFile, is_readable, items_of, list_files
from corpus.pipeline.read.nested import value_at
from corpus.pipeline.tasks.parse import spelled
from corpus.pipeline.tasks.record import to_item
from corpus.pipeline.tasks.schema import Item, SplitRule, Task


def read(task: Task, data: Path | None, split: Split) -> list[Item]:
    """The items of a split.

    Args:
        task: the task.
        data: its file or folder; None where the task brings its own.
        split: the split.

    Raises:
        TaskError: the task has no such split, or its data are missing, malformed or without an item for it.

    """
    _check_split(task, split)
    return _read(task, data_of(task, data), [split])[split]


def read_with_train(task: Task, data: Path | None, split: Split) -> tuple[list[Item], list[Item]]:
    """The items of a split and, in the same pass, those of train: none where the data hold none; raises as `read`."""
    _check_split(task, split)
    wanted = dict.fromkeys((split, *(name for name in task.source.splits if name == "train")))
    found = _read(task, data_of(task, data), [*wanted], needed=[split])
    return found[split], found.get("train", [])


def read_all(task: Task, data: Path | None) -> dict[Split, list[Item]]:
    """The items of every split, in one pass; raises as `read`."""
    return _read(task, data_of(task, data), [*task.source.splits])


def _check_split(task: Task, split: Split) -> None:
    if split not in task.source.splits:
        there = ", ".join(task.source.splits)
        raise TaskError(f"the task {task.name} has no split {split}; it has {there}", hint="Choose one of these.")


def _read(
    task: Task, path: Path, wanted: Sequence[Split], *, needed: Sequence[Split] | None = None
) -> dict[Split, list[Item]]:
    """Items by split; a split that is needed, all when None, must have some."""
    rules, values = task.source.splits, Counter[str]()
    bases = {rules[split].held_out_of or split for split in wanted}
    found: dict[Split, dict[str, Item]] = {split: {} for split in wanted}
    try:
        for file in _files(task, path):
            for number, record in items_of(file):
                where = f"{file}:{number}"
                if not isinstance(record, dict):
                    raise TaskError(
                        f"{where}: expected an object with fields, found {type(record).__name__}",
                        hint="Each item is a JSON object, or a row below a header of names.",
                    )
                base = _base(task, file, record, where, values)
                item = base in bases and to_item(task, record, where=where, place=f"{file.name}:{number}")
                if not base or not item or (split := _held_out(task, base, item, record)) not in found:
                    continue
                if other := found[split].get(item.id):
                    raise TaskError(
                        f"{where}: the id {item.id!r} stands at {other.place} too",
                        hint="Give each item its own id, or leave id out of [fields]: file and line then name it.",
                    )
                found[split][item.id] = item
    except SourceError as error:
        raise TaskError(error.message, hint=error.hint) from error
    if empty := next((split for split in needed or wanted if not found[split]), None):
        raise _empty(task, path, empty, values)
    return {split: [*items.values()] for split, items in found.items()}


def data_of(task: Task, data: Path | None) -> Path:
    """The file or folder that holds the data of a task.

    Raises:
        TaskError: there is no such file, or none is given and the task brings none.

    """
    if data is not None:
        path = data.expanduser()
    elif not task.source.path:
        where = f"{task.homepage} has it; give" if task.homepage else "Give"
        raise TaskError(f"the task {task.name} brings no data", hint=f"{where} the file or folder with --data FILE.")
    elif task.file is None:
        path = Path(str(files("corpus.manifests") / "tasks")) / task.source.path
    else:
        path = task.file.absolute().parent / Path(task.source.path).expanduser()
    if not path.exists():
        said = "--data" if data is not None else f"the path in {task.file or task.name}"
        raise TaskError(f"{path} is not there", hint=f"Correct {said}.")
    return path


def _files(task: Task, path: Path) -> Sequence[ItemFile]:
    """The files that the rules name, or all that can hold items."""
    there = list_files(path)
    patterns = {pattern: split for split, rule in task.source.splits.items() for pattern in rule.files}
    for pattern, split in patterns.items():
        if not any(_matches(file.name, pattern) for file in there):
            found = ", ".join(file.name for file in there[:5]) or "nothing"
            raise TaskError(
                f"{path} holds no file {pattern} ([source.{split}]); found {found}",
                hint="Give the folder or zip that holds it with --data.",
            )
    if patterns:
        return [file for file in there if any(_matches(file.name, pattern) for pattern in patterns)]
    if [(file.path, file.member) for file in there] == [(path, "")]:
        return there
    known = [file for file in there if is_readable(file.name) and not file.name.endswith(".txt")]
    if not known:
        raise TaskError(f"{path} holds no file of data", hint="It reads .jsonl, .json, .csv, .tsv and .parquet.")
    return known


def _matches(name: str, pattern: str) -> bool:
    """Whether the last parts of a path match a pattern."""
    parts = PurePosixPath(name).parts[-len(PurePosixPath(pattern).parts) :]
    return fnmatchcase("/".join(parts), pattern)


def _base(task: Task, file: ItemFile, record: Any, where: str, values: Counter[str]) -> Split | None:
    """The split that a record belongs to before items are held out; `values` counts what its field says."""
    field, value = task.source.split_field, ""
    if field:
        value = spelled(value_at(record, field))
        values[value] += 1
        if not value:
            raise TaskError(
                f"{where}: field {field!r}, which says the split, is missing",
                hint="Correct split_field in [source], or leave it out and name files.",
            )
    hits = [
        split
        for split, rule in task.source.splits.items()
        if rule.held_out_of is None and _holds(rule, file.name, value)
    ]
    if len(hits) > 1:
        raise TaskError(f"{where}: the item is in {hits[0]} and in {hits[1]}", hint="Let [source] name it once.")
    return hits[0] if hits else None


def _holds(rule: SplitRule, name: str, value: str) -> bool:
    by_file = not rule.files or any(_matches(name, pattern) for pattern in rule.files)
    return by_file and (not rule.values or value in rule.values)


def _held_out(task: Task, base: Split, item: Item, record: Any) -> Split:
    """The split of an item of `base`: each rule that holds some out takes an interval of hashes."""
    unit = value_at(record, task.source.unit_field) if task.source.unit_field else None
    identity = spelled(unit) or item.id
    place = int.from_bytes(hashlib.sha256(identity.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
    for split, rule in task.source.splits.items():
        if rule.held_out_of == base:
            if place < rule.share:
                return split
            place -= rule.share
    return base


def _empty(task: Task, path: Path, split: Split, values: Mapping[str, int]) -> TaskError:
    rule = task.source.splits[split]
    base = task.source.splits[rule.held_out_of] if rule.held_out_of else rule
    if base.values and not any(values[value] for value in base.values):
        found = ", ".join(f"{value} ({count:,})" for value, count in _most(values)) or "no record"
        why = f"no record has {task.source.split_field} = {' or '.join(base.values)}; found {found}"
    elif rule.held_out_of:
        why = f"none of the items of {rule.held_out_of} falls into the share of {rule.share:g}"
    else:
        why = "it holds no item, or only such as `ignored` leaves out"
    return TaskError(
        f"{path}: the split {split} of {task.name} is empty: {why}",
        hint=f"Correct [source.{split}] in the task file, or give other data with --data.",
    )


def _most(values: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """The five most frequent values."""
    yield from Counter(values).most_common(5)
