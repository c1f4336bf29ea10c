"""Task files and their data, laid where a test wants them; and the real sets, where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.records import MIRROR, lines

SETS = MIRROR.parent / "tasks"
"""Real labelled sets; not part of the repository."""
FILES = {"tnews": "tnews_fewclue", "lcqmc": "lcqmc_devtest", "c3": "c3_dialogue", "chid": "chid_fewclue"}
"""Names of the sets that are not named as their task."""

TASK = """\
name = "weather"
kind = "classification"
labels = ["dry", "wet"]
names = ["晴", "雨"]

[fields]
text = "text"
label = "label"
id = "id"

[source]
path = "weather.jsonl"
split_field = "split"

[source.train]
values = ["train"]

[source.test]
values = ["test"]

[prompt]
context = "{text}\\n天气："
answers = ["晴", "雨"]
"""
ITEMS: list[dict[str, Any]] = [
    {"id": "a", "split": "train", "text": "院子里的被子一上午就晒干了。", "label": "dry"},
    {"id": "b", "split": "train", "text": "出门忘了带伞，鞋子全湿了。", "label": "wet"},
    {"id": "c", "split": "test", "text": "屋檐下的水一直滴到半夜。", "label": "wet"},
]


def lay_task(
    folder: Path, items: Iterable[Mapping[str, Any]] = ITEMS, changes: Mapping[str, str] | None = None
) -> Path:
    """A task file with its data beside it; `changes` replace parts of TASK."""
    (folder / "weather.jsonl").write_bytes(lines(items))
    path, text = folder / "weather.toml", TASK
    for old, new in (changes or {}).items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path
