"""Small tasks with a rule that words decide, as files, and networks that read them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus.pipeline.tasks import Item
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.model.build import make
from corpus.train.presets import PRESETS
from corpus.train.tasks import network
from corpus.train.tasks.forms import Form
from corpus.train.tasks.tokens import TaskTokenizer

NARROW: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2}
KINDS: dict[str, Mapping[str, Any]] = {
    "classification": {"fields": ("text",), "labels": ("neg", "pos")},
    "entailment": {"fields": ("premise", "hypothesis"), "labels": ("yes", "no", "open")},
    "similarity": {"fields": ("first", "second"), "labels": ("0", "1")},
    "choice": {"fields": ("context", "question", "options"), "labels": ()},
}
_PLAIN, _GOOD, _BAD = "春雨早石书窗猫尾山灯船茶", "好香", "坏苦"


def toy_records(counts: Mapping[str, int], *, seed: int = 1) -> list[dict[str, Any]]:
    """Texts whose one good or bad character decides the label, in equal shares."""
    random = np.random.default_rng(seed)
    found = []
    for split, count in counts.items():
        for number in range(count):
            label = number % 2
            text = random.choice(list(_PLAIN), int(random.integers(2, 7))).tolist()
            text.insert(int(random.integers(0, len(text) + 1)), str(random.choice(list((_BAD, _GOOD)[label]))))
            found.append({"id": f"{split}-{number}", "text": "".join(text), "label": ("neg", "pos")[label],
                          "split": split, "group": f"g{number % 3}"})  # fmt: skip
    return found


def write_task(
    folder: Path, records: Sequence[Mapping[str, Any]], *, kind: str = "classification", name: str = "toy",
    splits: Sequence[str] = ("train", "validation", "test"), **changes: Any,
) -> Path:  # fmt: skip
    """A task file and its data; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = KINDS[kind]
    values: dict[str, Any] = {
        "name": name, "title": "玩具", "kind": kind, "summary": "Words decide.", "licence": "MIT",
        "labels": list(shape["labels"]), "cut": shape["fields"][0],
    } | changes  # fmt: skip
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value != []]
    lines += ["[fields]", *(f'{field} = "{field}"' for field in (*shape["fields"], "label", "id"))]
    lines += ['group = "group"'] if all("group" in record for record in records) else []
    lines += ["[source]", f'path = "{name}.jsonl"', 'split_field = "split"']
    for split in splits:
        lines += [f"[source.{split}]", f'values = ["{split}"]']
    (folder / f"{name}.jsonl").write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8"
    )
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def item(*texts: str, options: Sequence[str] = (), label: int = 0, number: int = 0) -> Item:
    """An item of these texts."""
    return Item(id=str(number), texts=texts, options=tuple(options), label=label, place=f"x:{number}")


def form_of(kind: str, **changes: Any) -> Form:
    """The form of a kind, with both orders where it has them."""
    values = {"kind": kind, "cut": KINDS[kind]["fields"][0], "both_orders": kind == "similarity", "delimiter": True}
    return Form(**values | changes)


def small_network(
    workspace: Workspace, kind: str, *, context: int = 64, family: str = "gpt2", **changes: Any
) -> tuple[Any, TaskTokenizer]:
    """A network of random weights with opinions, in evaluation mode, and its tokenizer."""
    tokenizer = TaskTokenizer(workspace.tokenizer)
    preset = dataclasses.replace(PRESETS["tiny" if family == "gpt2" else "llama-tiny"], **NARROW)
    causal = make(
        preset, vocab_size=tokenizer.size - 3, seq_length=context, separator=tokenizer.separator or 0,
        pad=tokenizer.pad, dropout=0.0, seed=3,
    )  # fmt: skip
    labels = KINDS[kind]["labels"]
    made = network.make(
        causal, labels=labels, is_choice=kind == "choice", rows=tokenizer.size, pad=tokenizer.pad, seed=3, **changes
    )
    for parameter in made.parameters():
        parameter.data.mul_(3)
    return made.eval(), tokenizer
