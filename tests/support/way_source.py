"""What the way of the kill tests begins with: an archive of records, an exam, and the model of a score."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

from tests.support.documents import TRAIN, VALID
from tests.support.records import baike, lines
from tests.support.scored import random_model


def lay_source(folder: Path) -> None:
    """Lay them into a folder: an archive whose way to rows takes some seconds."""
    chance = random.Random(3)
    records = [baike(n, answer="。".join(f"第{chance.randrange(999)}步要做好" for _ in range(40))) for n in range(4500)]
    for record in records[::35]:
        record["answer"] = ""
    for record, repeated in zip(records[1::25], records[2::25], strict=False):
        record |= {"title": repeated["title"], "answer": repeated["answer"]}
    with zipfile.ZipFile(folder / "baike2018qa.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(TRAIN, lines(records[:2200]))
        out.writestr(VALID, lines(records[2200:]))
    random_model(folder / "score.safetensors")
    (folder / "exam.jsonl").write_bytes(lines([{"question": record["answer"]} for record in records[5:2000:200]]))
