"""What people and programs see: tables at every width, bars and log lines, JSON; on real pseudo-terminals and pipes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import random
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console as Screen

from corpus.pipeline import manifest
from corpus.pipeline.humanize import size_text
from corpus.pipeline.terminal import console
from corpus.pipeline.terminal.progress_bar import Bar
from corpus.pipeline.terminal.progress_log import Pace
from corpus.pipeline.terminal.table import fold, lay_out
from tests.support.command import CORPUS, corpus, corpus_process
from tests.support.documents import TRAIN
from tests.support.records import ROOT, baike, lines

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(
    columns: int, command: Sequence[object], folder: Path, *, stdout: int | None = None, **environment: str
) -> str:
    """What a command writes to a terminal of that many columns, line ends as in a file."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        [str(part) for part in command], cwd=folder, stdin=theirs, stdout=theirs if stdout is None else stdout,
        stderr=theirs, env=settings | {"TERM": "xterm-256color"} | environment,
    )  # fmt: skip
    os.close(theirs)
    came = b""
    while True:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            block = b""
        if not block:
            break
        came += block
    os.close(ours)
    assert process.wait(timeout=60) == 0, came.decode()
    return came.decode().replace("\r\n", "\n")


def shown(columns: int, *arguments: object, folder: Path) -> str:
    """The lines that stay on the terminal: what comes after the last bar was taken away."""
    text = on_terminal(columns, [CORPUS, *arguments], folder)
    return ESCAPE.sub("", text.rpartition("\x1b[2K")[2])


def widest(text: str) -> int:
    """Columns of the longest line; a path may be longer, since it is not broken."""
    return max(cell_len(line) for line in text.splitlines() if "workspace/" not in line)


# --- tables --------------------------------------------------------------------------------------------------------

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
    assert table == "\ndemo\n  rows 53  used 9%\ndemo, test\n  rows 3  used 8%\n"


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
        pieces = fold(text, width)
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert sum(path in piece for piece in pieces) == 1
        assert all(cell_len(piece) <= width or path in piece for piece in pieces)
        assert not any(piece.strip()[0] in "，。）" for piece in pieces)


# --- commands on terminals and in pipes ----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_datasets_on_a_terminal(tmp_path: Path, columns: int) -> None:
    text = on_terminal(columns, [CORPUS, "datasets"], tmp_path)
    assert "\x1b" not in text
    assert widest(text) <= columns
    for name in manifest.DATASETS:
        each = manifest.load(name)
        assert name in text
        assert f" {each.records:,}" in text
        assert each.title.removesuffix(name).strip() in text
    if columns >= 80:
        ends = {cell_len(match[0]) for match in re.finditer(r"(?m)^ \w+ +[\u4e00-\u9fff]+ +[\d,]+", text)}
        assert len(ends) == 1, text  # the numbers end in one column, after names in Chinese


def test_the_whole_way_on_a_phone(tmp_path: Path) -> None:
    folder = tmp_path / "一个名字很长的文件夹，手机屏幕上一行放不下"
    folder.mkdir()
    place = ("--workspace", folder / "workspace")
    text = shown(40, "ingest", "--dataset", "demo", *place, folder=tmp_path)
    assert widest(text) <= 40
    assert "\n  characters  18.4 k\n" in text
    assert f"{folder}/workspace/documents/demo/ledger.json" in text.replace("ledger:\n  ", "ledger: ")
    text = shown(40, "pack", "--seq-length", 64, *place, folder=tmp_path)
    assert widest(text) <= 40
    assert re.search(r"(?m)^tokenizer: .*\n\ndemo\n +bytes/token +[\d.]+\n", text)
    assert re.search(r"\ndemo, validation\n  documents +7\n  tokens +\d+\n", text)
    run = folder / "workspace" / "models" / "一次训练的名字\x1b[2J"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    text = on_terminal(40, [CORPUS, "status", *place], tmp_path)
    assert "\x1b" not in text  # a folder's name must not command the terminal
    assert "\nraw/demo\n  state finished  size 67.9 kB\n" in text
    assert "\nmodels/一次训练的名字\\x1b[2J\n" in text
    assert widest(text) <= 40


def test_a_pipe_has_one_line_a_row_and_no_codes(tmp_path: Path) -> None:
    corpus("download", "--dataset", "demo", folder=tmp_path)
    (tmp_path / "workspace" / "models" / ("long" * 30)).mkdir(parents=True)
    (tmp_path / "workspace" / "models" / ("long" * 30) / "run.json").write_text("{}")
    done = corpus_process("status", folder=tmp_path, COLUMNS="30")
    assert re.search(rf"models/{'long' * 30} +partial +1 +2 B\n", done.stdout)
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    assert not {"\x1b", "\r"} & {*done.stdout, *done.stderr}


def test_no_color_and_dumb_terminals(tmp_path: Path) -> None:
    corpus("download", "--dataset", "demo", folder=tmp_path)
    command = [CORPUS, "verify"]
    assert COLOUR.search(on_terminal(80, command, tmp_path))
    plain = on_terminal(80, command, tmp_path, NO_COLOR="1")
    assert "verify" in plain
    assert "━" in plain
    assert not COLOUR.search(plain)
    code = (
        "from corpus.pipeline.cli import main; from corpus.pipeline.terminal import progress_log\n"
        "progress_log.FIRST_S = 0.0; main.main(['verify'])"  # no ten seconds for a line
    )
    dumb = on_terminal(80, [sys.executable, "-c", code], tmp_path, TERM="dumb")
    assert "\x1b" not in dumb
    assert re.search(r"(?m)^verify: 68 kB of 68 kB \(100%\) in \d+ s", dumb)


def test_results_go_to_their_file_while_a_bar_is_drawn(tmp_path: Path) -> None:
    code = (
        "from corpus.pipeline.terminal.console import Console, write\n"
        "bar = Console()\n"
        "bar.begin('sample', 2, 'samples')\n"
        "write('a result')\n"
        "bar.say('a [bold]remark[/bold] :smile:')\n"
        "bar.end()\n"
    )
    with (tmp_path / "results").open("wb") as file:
        text = on_terminal(80, [sys.executable, "-c", code], tmp_path, stdout=file.fileno())
    assert (tmp_path / "results").read_text() == "a result\n"
    assert "a result" not in text
    assert "a [bold]remark[/bold] :smile:" in text


# --- long work -----------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_tells_rate_done_left_and_dropped() -> None:
    clock = Clock()
    work = Pace("demo: documents", 1_600_000_000, "B", clock)
    said = []
    for second in range(1, 75):
        clock.now = second
        work.drop({"too_short": 3, "empty": 1})
        said.append(work.advance(20_000_000))
    assert [index + 1 for index, line in enumerate(said) if line] == [10, 30, 70]
    assert said[9] == (
        "demo: documents: 200 MB of 1.6 GB (12%), 20 MB/s, about 70 s left, 40 dropped (too_short 30, empty 10)"
    )
    work.drop({"a": 1, "b": 1})
    assert work.ended() == (
        "demo: documents: 1.5 GB of 1.6 GB (92%) in 74 s, 20 MB/s, 298 dropped (too_short 222, empty 74, a 1, ...)"
    )


def test_short_work_says_nothing_and_a_day_does_not_flood() -> None:
    clock = Clock()
    work = Pace("training", 86_400, "steps", clock)
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
    work = Pace("rows", 100_000, "documents", clock)
    work.advance(90_000)
    said = []
    for second in range(1, 3_600):
        clock.now = second
        said.append(work.advance(1))
    told = [line for line in said if line]
    assert "9,001/s" in told[0]
    assert "1.0/s" in told[-1]


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


@pytest.mark.parametrize("columns", [24, 40, 80, 120])
def test_a_bar_fits_and_cuts_nothing(columns: int) -> None:
    bar = Bar("translation2019zh: 文档", 1_640_000_000, "B", dropped=lambda: 1_234_567)
    bar.update(bar.task, completed=412_000_000)
    screen = Screen(width=columns, file=io.StringIO(), color_system=None)
    for each in bar.get_renderables():
        screen.print(each)
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(cell_len, text.splitlines())) < columns
    for part in ("translation2019zh: 文档", "412 MB of 1.6 GB", "25%", "1,234,567 dropped"):
        assert part in text
    assert ("━" in text) == (columns >= 80)


# --- JSON ----------------------------------------------------------------------------------------------------------


def fields(heading: str) -> set[str]:
    """The fields that a table of docs/terminal.md lists, from the sentence that begins so."""
    text = (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8")
    table = text[text.index(heading) :].split("\n\n")[1]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_json_is_what_the_ledgers_say(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps({"question": "潮汐是海水按时涨落的现象，由月亮和太阳引起。"}))
    listed = fields("`download`, `clean`")
    stages: set[str] = set()
    for arguments in (
        ["download", "--dataset", "demo"],
        ["clean"],
        ["ingest", "--dataset", "demo", "--against", "items.jsonl"],
        ["dedup"],
        ["decontaminate"],
        ["pack", "--seq-length", 64],
        ["train", "--model", "tiny", "--max-steps", 1, "--batch-size", 1, "--device", "cpu", "--run", "试"],
    ):
        done = json.loads(corpus(*arguments, "--json", folder=tmp_path).stdout)
        for stage in done:
            ledger = json.loads((tmp_path / stage["ledger"]).read_bytes())
            assert {name: stage[name] for name in ("stage", "dataset", "counts", "fingerprint")} == {
                name: ledger[name] for name in ("stage", "dataset", "counts", "fingerprint")
            }
            assert (stage["files"], stage["bytes"]) == (
                len(ledger["outputs"]),
                sum(o["bytes"] for o in ledger["outputs"]),
            )
            assert listed - {"left_out"} == stage.keys() - {"left_out"}
        stages |= {stage["stage"] for stage in done}
    assert stages == {"download", "ingest", "dedup", "decontaminate", "tokenizer", "pack", "train"}
    done = json.loads(corpus("ingest", "--dataset", "demo", "--json", folder=tmp_path).stdout)
    assert [stage["stage"] for stage in done] == ["ingest", "dedup", "decontaminate"]
    assert [stage["skipped"] for stage in done] == [True] * 3
    assert done[0]["left_out"].keys() == {"documents", "characters", "reasons"}
    found = json.loads(corpus_process("datasets", "--json", folder=tmp_path, PYTHONIOENCODING="ascii").stdout)
    assert [each["name"] for each in found] == list(manifest.DATASETS)
    assert found[-1]["finished"] == ["raw", "documents", "packed"]
    assert found[-1]["title"] == manifest.load("demo").title
    assert found[0].keys() == fields("`corpus datasets` prints")
    rows = json.loads(corpus("status", "--json", folder=tmp_path).stdout)
    assert rows[0].keys() == fields("`corpus status` prints")
    assert {row["state"] for row in rows} == {"finished"}
    checked = json.loads(corpus("verify", "--json", folder=tmp_path).stdout)
    assert checked == {"stages": 7, **{name: sum(row[name] for row in rows) for name in ("files", "bytes")}}


def test_json_has_no_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    console.data({"loss": float("nan"), "scores": [1.5, float("inf"), (True, None)]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "loss": None,
        "scores": [1.5, None, [True, None]],
    }


def test_json_is_empty_after_a_failure(tmp_path: Path) -> None:
    corpus("download", "--dataset", "demo", folder=tmp_path)
    (tmp_path / "workspace/raw/demo/wiki.json").unlink()
    for arguments, code in ((["verify"], 1), (["pack", "--seq-length", 1], 2), (["train", "--dry-run"], 2)):
        done = corpus(*arguments, "--json", folder=tmp_path, code=code)
        assert not done.stdout
        assert done.stderr
