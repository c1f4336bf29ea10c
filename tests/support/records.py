"""Records that tests are made of, and where the repository and the shared sample lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
MIRROR = Path(os.environ.get("CORPUS_MIRROR", ROOT.parent / "shared" / "mirror"))


def examples(soak: int, share: int = 4) -> int:
    """How many examples a property is tried on: as many as given in a soak, a quarter or another share of them else."""
    return soak if "SOAK_MINUTES" in os.environ else soak // share


def spliced(texts: Sequence[str]) -> list[str]:
    """Texts and what their halves make of each other: four cases for the price of one, as most of it is the drawing."""
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts]
    pairs = list(zip(halves, halves[1:] + halves[:1], strict=True))
    return [
        *texts,
        *(head + tail for (head, _), (_, tail) in pairs),
        *(head + tail for (_, tail), (head, _) in pairs),
        *(tail + head for head, tail in halves),
    ]


LayRaw = Callable[..., None]
Shared = Callable[[str, Callable[[Path], object]], Path]
"""Gives the folder of a name, which a function fills where no worker has."""


def lines(records: Iterable[Any]) -> bytes:
    """JSON Lines."""
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


_DIGITS = (
    "灯下读信",
    "河边种柳",
    "雨后修伞",
    "山中采茶",
    "桥头卖花",
    "夜里磨墨",
    "清晨扫雪",
    "午后晒书",
    "门前数燕",
    "井旁洗米",
)


def baike(number: int, **fields: Any) -> dict[str, Any]:
    """One baike record, like no other number's."""
    told = "、".join(_DIGITS[int(digit)] for digit in f"{number:03}")
    record = {
        "qid": f"qid_{number}",
        "category": "生活",
        "title": f"第{number}个问题该怎样回答？",
        "desc": "",
        "answer": f"第{number}个问题问的是{told}，想清楚再说。",
    }
    return record | fields


def baike_near(number: int, other: int) -> dict[str, Any]:
    """A record with the text of another number, but for a word."""
    like = baike(other)
    return baike(number, title=like["title"], answer=like["answer"].replace("清楚", "清楚了"))
