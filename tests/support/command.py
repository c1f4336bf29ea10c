"""The command: in this process, where its exit code and its output matter; as a process, where the process does."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

from corpus.pipeline.cli.main import main

CORPUS = Path(sys.executable).with_name("corpus")


def corpus(*arguments: object, folder: Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in this process and check its exit code; a traceback is always a failure."""
    words = [str(argument) for argument in arguments]
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="", write_through=True) for _ in range(2))
    terminate, threads, ended = signal.getsignal(signal.SIGTERM), _torch_threads(), 0
    try:
        with (
            contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors),
            patch.dict(os.environ, environment),
        ):  # fmt: skip
            main(words)
    except SystemExit as leaving:
        ended = int(leaving.code or 0)
    finally:
        signal.signal(signal.SIGTERM, terminate)
        if threads is not None:
            sys.modules["torch"].set_num_threads(threads)
    return _checked(subprocess.CompletedProcess(words, ended, _text(out), _text(errors)), code)


def corpus_process(
    *arguments: object, folder: Path, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as users do and check its exit code; a traceback is always a failure."""
    done = subprocess.run(
        [CORPUS, *map(str, arguments)], cwd=folder, env=os.environ | environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    return _checked(done, code)


def _checked(done: subprocess.CompletedProcess[str], code: int) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr + done.stdout
    return done


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def _torch_threads() -> int | None:
    """The threads of this process, which `corpus train` changes."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
