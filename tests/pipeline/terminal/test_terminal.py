"""What people and programs see on pseudo-terminals, in pipes, and on closed streams; JSON."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.cells import cell_len

from corpus.pipeline import manifest
from corpus.pipeline.terminal import console
from tests.support import forked
from tests.support.command import CORPUS, corpus, corpus_process
from tests.support.forked import Forked
from tests.support.records import ROOT
from tests.support.runs import narrowed

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(
    columns: int, command: Sequence[object], folder: Path, *, stdout: int | None = None, **environment: str
) -> str:
    """What a command writes to a terminal of that many columns, line ends as in a file."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR", "FORCE_COLOR"}}
    process = Forked(
        [str(part) for part in command], cwd=folder, terminal=theirs, stdout=stdout,
        env=settings | {"TERM": "xterm-256color"} | environment,
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
    return max(cell_len(line) for line in text.splitlines() if "workspace" not in line)


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
    assert "\nraw/demo\n  state  finished\n  size    67.9 kB\n" in text
    assert "\nmodels/一次训练的名字⟨001B⟩[2J\n" in text
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
    assert re.search(r"(?m)^verify: 67\.9 kB of 67\.9 kB \(100%\) in \d+ s", dumb)


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


def test_only_a_terminal_gets_untrusted_text_made_safe(tmp_path: Path) -> None:
    text = "问\x1b[2J\u202e答\n\t\u3000完"
    code = f"from corpus.pipeline.terminal import console; console.write({text!r})"
    assert on_terminal(80, [sys.executable, "-c", code], tmp_path) == "问⟨001B⟩[2J⟨202E⟩答\n\t\u3000完\n"
    with (tmp_path / "results").open("wb") as file:
        on_terminal(80, [sys.executable, "-c", code], tmp_path, stdout=file.fileno())
    assert (tmp_path / "results").read_text(encoding="utf-8") == text + "\n"
    code = f"from corpus.pipeline.terminal import console; console.data([{text!r}])"
    assert json.loads(on_terminal(80, [sys.executable, "-c", code], tmp_path)) == [text]


# --- closed streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_gets_nothing_and_changes_nothing(tmp_path: Path, closed: str) -> None:
    corpus("download", "--dataset", "demo", folder=tmp_path)
    for command, code in (("status --json", 0), ("datasets", 0), ("verify", 0), ("status --nonsense", 2)):
        whole = forked.run([CORPUS, *command.split()], cwd=tmp_path)
        shell = ["sh", "-c", f"{CORPUS} {command} {closed}"]
        done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, whole.returncode) == (code, code), done.stderr
        assert done.stdout == ("" if " >&-" in f" {closed}" else whole.stdout)
        assert done.stderr == ("" if "2>&-" in closed else whole.stderr)


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
        with narrowed():
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
    for arguments, code in ((["verify"], 1), (["pack", "--seq-length", 1], 2), (["train", "--dry-run"], 1)):
        done = corpus(*arguments, "--json", folder=tmp_path, code=code)
        assert not done.stdout
        assert done.stderr
