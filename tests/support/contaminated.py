"""Texts of the tests that look for evaluation items."""

from __future__ import annotations

from tests.support.items import CONTEXT, prose

QUESTION = "石桥修好以后，渡船为什么只在赶集的日子才开？"


def wiki(number: int, text: str) -> dict[str, str]:
    return {"id": str(number), "url": f"https://example.org/{number}", "title": f"第{number}篇随笔", "text": text}


PLANTED = prose(3) + f"\n\n他又写道：“{CONTEXT}”😀末了还画了一只猫。" + prose(103)
