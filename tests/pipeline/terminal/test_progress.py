"""Bars, and the lines of a log in their place."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as Screen

from corpus.pipeline.humanize import size_text
from corpus.pipeline.terminal.progress_bar import Bar
from corpus.pipeline.terminal.progress_log import ProgressLog
from tests.support.documents import TRAIN
from tests.support.records import baike, lines


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_tells_rate_done_left_and_dropped() -> None:
    clock = Clock()
    work = ProgressLog("demo: documents", 1_600_000_000, "B", clock)
    said = []
    for second in range(1, 75):
        clock.now = second
        work.drop({"too_short": 3, "empty": 1})
        said.append(work.advance(20_000_000))
    assert [index + 1 for index, line in enumerate(said) if line] == [10, 30, 70]
    assert said[9] == (
        "demo: documents: 200 MB of 1.6 GB (12%), 20.0 MB/s, about 70 s left, 40 dropped (too_short 30, empty 10)"
    )
    work.drop({"a": 1, "b": 1})
    assert work.ended() == (
        "demo: documents: 1.5 GB of 1.6 GB (92%) in 74 s, 20.0 MB/s, 298 dropped (too_short 222, empty 74, a 1, ...)"
    )


def test_short_work_says_nothing_and_a_day_does_not_flood() -> None:
    clock = Clock()
    work = ProgressLog("training", 86_400, "steps", clock)
    clock.now = 9.9
    assert work.advance(10) is None
    assert work.ended() is None
    lines_ = []
    for second in range(10, 86_401):
        clock.now = second
        lines_.append(work.advance(1))
    assert 250 < sum(line is not None for line in lines_) < 320


def test_what_a_rerun_finds_finished_is_soon_not_in_the_rate() -> None:
    clock = Clock()
    work = ProgressLog("rows", 100_000, "documents", clock)
    work.advance(90_000)
    said = []
    for second in range(1, 3_600):
        clock.now = second
        said.append(work.advance(1))
    told = [line for line in said if line]
    assert "9,001/s" in told[0]
    assert "1.0/s" in told[-1]


def test_what_an_interrupted_run_had_done_is_in_the_amount_and_in_no_rate() -> None:
    clock = Clock()
    screen = Screen(width=120, file=io.StringIO(), color_system=None)
    bar = Bar("training", 3_000, "steps", dropped=lambda: 0, screen=screen, clock=clock, done=1_000)
    work = ProgressLog("training", 3_000, "steps", clock, done=1_000)
    assert "1,000 of 3,000 steps (33%)" in drawn(bar)
    clock.now = 20.0
    bar.advance(bar.task, 40)
    assert "1,040 of 3,000 steps (35%)  2.0/s  16 min left" in drawn(bar)
    assert work.advance(40) == "training: 1,040 of 3,000 steps (35%), 2.0/s, about 16 min left"
    assert work.ended() == "training: 1,040 of 3,000 steps (35%) in 20 s, 2.0/s"


def test_ingest_in_a_log(tmp_path: Path) -> None:
    """The real command, with the ten seconds made none."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    records = [baike(n, answer="" if n % 4 == 0 else f"第{n}个回答，写得足够长，也足够清楚。") for n in range(400)]
    (folder / TRAIN).write_bytes(lines(records))
    code = (
        "from corpus.pipeline.terminal import progress_log\n"
        "progress_log.FIRST_S = 0.0\n"
        "from corpus.pipeline.cli.main import main\n"
        f"main(['ingest', '--source', {str(folder)!r}, '--no-dedup', '--workers', '1'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    size = size_text((folder / TRAIN).stat().st_size)
    found = re.findall(r"baike2018qa: documents: (.*)", done.stderr)
    assert found, done.stderr
    assert found[-1].startswith(f"{size} of {size} (100%) in ")
    for line in found:  # while it works, and at its end
        assert line.endswith("100 dropped (empty 100)")
        assert "/s, " in line
    assert len(found) == 2
    assert not {"\x1b", "\r"} & {*done.stdout, *done.stderr}


def drawn(bar: Bar) -> str:
    """What a bar draws at this moment."""
    with bar.console.capture() as captured:
        for each in bar.get_renderables():
            bar.console.print(each)
    return captured.get()


@pytest.mark.parametrize("columns", [24, 40, 80, 120])
def test_a_bar_fits_and_cuts_nothing(columns: int) -> None:
    screen = Screen(width=columns, file=io.StringIO(), color_system=None)
    bar = Bar("translation2019zh: 文档", 1_640_000_000, "B", dropped=lambda: 1_234_567, screen=screen)
    bar.update(bar.task, completed=412_000_000)
    text = drawn(bar)
    assert max(map(cell_len, text.splitlines())) < columns
    for part in ("translation2019zh: 文档", "412 MB of 1.6 GB", "25%", "1,234,567 dropped"):
        assert part in text
    assert ("━" in text) == (columns >= 80)


def test_a_note_stands_at_the_end_of_bar_and_line() -> None:
    clock, note = Clock(), ""
    screen = Screen(width=120, file=io.StringIO(), color_system=None)
    bar = Bar("training", 30, "steps", dropped=lambda: 0, screen=screen, clock=clock, note=lambda: note)
    work = ProgressLog("training", 30, "steps", clock)
    assert drawn(bar).split()[-1] == "(0%)"
    work.note = note = "loss 3.214, evaluating"
    assert drawn(bar).rstrip().endswith("  loss 3.214, evaluating")
    clock.now = 10.0
    assert work.advance(15) == "training: 15 of 30 steps (50%), 1.5/s, about 10 s left, loss 3.214, evaluating"


def test_the_first_ticks_of_a_bar_give_no_nonsense_rate() -> None:
    clock = Clock()
    screen = Screen(width=120, file=io.StringIO(), color_system=None)
    bar = Bar("keys", 366_636, "documents", dropped=lambda: 0, screen=screen, clock=clock)
    drawn(bar)
    clock.now = 0.5
    bar.advance(bar.task, 51_301)
    clock.now = 0.500001
    bar.advance(bar.task, 51_301)
    assert drawn(bar).split()[-5:] == ["102,602", "of", "366,636", "documents", "(28%)"]
    clock.now = 5.0
    assert "20,520/s  13 s left" in drawn(bar)
    for second in range(6, 400):
        clock.now = second
        bar.advance(bar.task, 100)
        text = drawn(bar)
    assert "  100/s  " in text
