"""Tables and wrapped lines at every width."""

from __future__ import annotations

import random
import re

import pytest
from rich.cells import cell_len

from corpus.pipeline.terminal.table import lay_out, wrap

PARTS = ("dataset", "records", "left out", "characters")
ROWS = [("news2016zh", 2_507_000, 1_234_567_890_123, "1.9 G"), ("维基百科二〇一九", 227, 0, "18.4 k")]


def test_a_table_is_the_same_in_every_pipe() -> None:
    assert lay_out(PARTS, ROWS, left=1, spare=("records",), width=None).split("\n") == [
        "",
        " dataset              records            left out   characters",
        " ─────────────────────────────────────────────────────────────",
        " news2016zh         2,507,000   1,234,567,890,123        1.9 G",
        " 维基百科二〇一九         227                   0       18.4 k",
        "",
    ]


def test_a_narrow_table_gives_up_columns_then_becomes_blocks() -> None:
    assert lay_out(PARTS, ROWS, left=1, spare=("records",), width=60).split("\n")[3:5] == [
        " news2016zh         1,234,567,890,123        1.9 G",
        " 维基百科二〇一九                   0       18.4 k",
    ]
    assert lay_out(PARTS, ROWS, left=1, spare=(), width=40).split("\n") == [
        "",
        "news2016zh",
        "  records             2,507,000",
        "  left out    1,234,567,890,123",
        "  characters              1.9 G",
        "维基百科二〇一九",
        "  records        227",
        "  left out         0",
        "  characters  18.4 k",
        "",
    ]
    assert lay_out(("what", "state"), [("raw/demo", "finished"), ("dedup", "partial")], left=2, spare=(), width=20) == (
        "\nraw/demo: finished\ndedup: partial\n"
    )


def test_rows_that_belong_to_the_one_above_say_so_in_blocks() -> None:
    table = lay_out(("dataset", "rows", "used"), [("demo", 53, "9%"), ("  test", 3, "8%")], left=1, spare=(), width=19)
    assert table == "\ndemo\n  rows  53\n  used  9%\ndemo, test\n  rows   3\n  used  8%\n"


@pytest.mark.parametrize("seed", range(4))
def test_at_no_width_is_a_number_or_a_name_cut(seed: int) -> None:
    random_ = random.Random(seed)
    names = ["wiki2019zh", "百科问答", "运行之名", "x", "translation2019zh"]
    rows = [
        (random_.choice(names), f"{random_.random() * 10 ** random_.randrange(6):,.2f} MB", random_.randrange(10**12))
        for _ in range(4)
    ]
    for width in range(24, 130):
        table = lay_out(("name", "size of it", "records"), rows, left=1, spare=("size of it",), width=width)
        assert max(map(cell_len, table.splitlines())) <= width
        for name, _, number in rows:
            assert name in table
            assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", table), (width, table)


def test_folded_lines_lose_nothing_and_paths_stay_whole() -> None:
    path = "/home/用户/一个很长很长的文件夹名字/workspace/documents/ledger.json"
    text = f"note: 百科类问答，四百多个类别，一问一答。这些 words 也在 {path} 里，（见下）"
    for width in range(12, 90):
        pieces = wrap(text, width)
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert sum(path in piece for piece in pieces) == 1
        assert all(cell_len(piece) <= width or path in piece for piece in pieces)
        assert not any(piece.strip()[0] in "，。）" for piece in pieces)
