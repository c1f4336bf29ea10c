"""The command `corpus serve`: wrong usage, what it cannot start with, and Ctrl-C of the real process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.command import CORPUS, corpus
from tests.support.serving import CONTEXT, save_endless


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"], ["--port", "-1"], ["--port", "x"], ["--host", ""], ["--batch-size", "0"],
        ["--queue", "-1"], ["--max-seconds", "0"], ["--max-seconds", "nan"], ["--model", ""], ["--device", "abacus"],
    ],
)  # fmt: skip
def test_wrong_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = corpus("serve", *arguments, folder=tmp_path, code=2)
    assert arguments[0] in done.stderr


def test_what_it_cannot_start_with(tmp_path: Path) -> None:
    done = corpus("serve", folder=tmp_path, code=1)
    assert "holds no finished model" in done.stderr
    (tmp_path / "model").mkdir()
    done = corpus("serve", "--model", "model", "--host", "192.0.2.1", folder=tmp_path, code=1)
    assert "--api-key-file" in done.stderr
    (tmp_path / "keys").write_text("short")
    done = corpus("serve", "--model", "model", "--api-key-file", "keys", folder=tmp_path, code=1)
    assert "fewer than 16" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = corpus("serve", "--model", "model", "--port", port, folder=tmp_path, code=1)
    assert f"127.0.0.1:{port}: Address already in use" in done.stderr
    assert "--port" in done.stderr


def test_ctrl_c_ends_open_answers_and_the_server(tmp_path: Path) -> None:
    """The one process of these tests: signals and exit code are those of a process."""
    save_endless(tmp_path / "talker")
    process = subprocess.Popen(
        [CORPUS, "serve", "--model", "talker", "--port", "0", "--access-log"], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:3] == ["serving", "talker", "at"]
        body = {"prompt": "河", "max_tokens": CONTEXT - 10, "stream": True}
        lines: list[str] = []
        with httpx.stream("POST", f"{words[3]}v1/completions", json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                if not lines:
                    process.send_signal(signal.SIGINT)
                lines += [line] if line else []
        assert lines[-1] == "data: [DONE]"
        assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["ended_by"] == "shutdown"
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in errors
    assert "ended by shutdown" in errors
    assert errors.splitlines()[-1] == "Interrupted."
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{words[3]}health")
