"""Commands as processes that start in milliseconds, for tests of what a process does and not of how it starts.

`Forked` and `run` are `subprocess.Popen` and `subprocess.run` of an interpreter or of `corpus`, by a fork of a server
that has imported the libraries. Arguments, folder, environment, files, session, limits, signals, exit codes and worker
processes are those of a process of its own. What a fork does not show: the entry point's first line, imports and their
order, and what the interpreter or a library reads when it starts (`READ_AT_START`), which must be as in this process.
Tests of these start a process with `subprocess`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

PLACE = "CORPUS_TEST_FORKS"
"""The variable of the folder where servers listen, which xdist's workers inherit."""
SERVER = Path(__file__).with_name("fork_server.py")
PIPELINE = (
    "corpus.pipeline.cli.main", "corpus.pipeline.download.stage", "corpus.pipeline.documents.stage",
    "corpus.pipeline.dedup.stage", "corpus.pipeline.decontaminate.stage", "corpus.pipeline.quality.stage",
    "corpus.pipeline.tokenizer.stage", "corpus.pipeline.pack.stage", "corpus.pipeline.workflows", "rich.progress",
    "rich.table",
)  # fmt: skip
TORCH = (
    *PIPELINE, "corpus.train.run.stage", "corpus.train.run.dry_run", "corpus.train.evaluation.stage",
    "corpus.generate.stage", "corpus.generate.bulk", "corpus.generate.chat", "datasets", "transformers.trainer",
    "torch.distributed.run", "matplotlib.backends.backend_agg", "matplotlib.figure",
)  # fmt: skip
SERVERS = {"pipeline": PIPELINE, "torch": TORCH}
NEED_TORCH = ("train", "evaluate", "sample", "score", "demo")
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "OMP_", "MKL_", "OPENBLAS_", "HF_ENDPOINT", "HF_HUB_OFFLINE")


@contextlib.contextmanager
def serving() -> Iterator[None]:
    """Servers for the processes of this test run, which import nothing before the first command comes."""
    with tempfile.TemporaryDirectory(prefix="forks-") as place, contextlib.ExitStack() as stack:
        Path(place, "environment.json").write_text(json.dumps(dict(os.environ)))
        os.environ[PLACE] = place
        try:
            for name, modules in SERVERS.items():
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(f"{place}/{name}")
                    listener.listen()
                    command = [sys.executable, str(SERVER), str(listener.fileno()), *modules]
                    stack.enter_context(
                        subprocess.Popen(
                            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()],
                            start_new_session=True,
                        )
                    )  # fmt: skip
            yield
        finally:
            del os.environ[PLACE]


class Forked:
    """What `subprocess.Popen` is to a process."""

    def __init__(
        self, arguments: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None,
        start_new_session: bool = False, file_bytes: int | None = None, torch: bool | None = None,
        terminal: int | None = None, stdout: int | None = None,
    ) -> None:  # fmt: skip
        self.args = [str(argument) for argument in arguments]
        self.returncode: int | None = None
        words = self.args[1:] if self.args[0] == sys.executable else self.args
        asked = {
            "arguments": words, "folder": str(cwd or Path.cwd()), "environment": _environment(env),
            "umask": _umask(), "new_session": start_new_session, "file_bytes": file_bytes,
        }  # fmt: skip
        server = "torch" if (_needs_torch(words) if torch is None else torch) else "pipeline"
        pipes, files = [], [] if terminal is None else [terminal, terminal if stdout is None else stdout, terminal]
        if terminal is None:
            pipes = [os.pipe(), os.pipe()]
            files = [os.open(os.devnull, os.O_RDONLY), *(end for _, end in pipes)]
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(str(Path(os.environ[PLACE], server)))
        data = json.dumps(asked).encode() + b"\n"
        sent = socket.send_fds(self._connection, [data], files)
        self._connection.sendall(data[sent:])
        for file in files if pipes else []:
            os.close(file)
        self._answers = self._connection.makefile("rb")
        self.pid = self._answer()
        self._printed = {end: bytearray() for end, _ in pipes}
        self._open = set(self._printed)

    def poll(self) -> int | None:
        """Its exit code once it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._answer()
            self._answers.close()
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed, when it has ended; after a TimeoutExpired it may be called again."""
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else max(0.0, deadline - time.monotonic())

        with selectors.DefaultSelector() as selector:
            for pipe in self._open:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(left())
                if not ready and deadline is not None and time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    self._printed[key.fd] += data
                    if not data:
                        selector.unregister(key.fd)
                        self._open.remove(key.fd)
                        os.close(key.fd)
        self.wait(left())
        out, errors = (bytes(data).decode() for data in self._printed.values())
        return out, errors

    def _answer(self) -> int:
        line = self._answers.readline()
        assert line, "the server of forks has ended; what it printed tells why"
        return int(line)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.communicate()


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """The variables, those of this process by default; none differs that a process reads only when it starts."""
    begun = json.loads(Path(os.environ[PLACE], "environment.json").read_text())
    environment = dict(os.environ if given is None else given)
    names = {name for name in {*environment, *begun} if name.startswith(READ_AT_START)}
    wrong = {name for name in names if environment.get(name) != begun.get(name)}
    assert not wrong, f"read when a process starts, so a fork would not show it: {wrong}"
    return environment


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _needs_torch(words: list[str]) -> bool:
    """Whether it is a command of `corpus` that does."""
    command = words[2:] if words[0] == "-m" else words[1:]
    return bool(command) and command[0] in NEED_TORCH


def run(
    arguments: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None,
    file_bytes: int | None = None, torch: bool | None = None, timeout: float = 300,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run to the end; a process that takes too long is killed."""
    process = Forked(arguments, cwd=cwd, env=env, file_bytes=file_bytes, torch=torch)
    try:
        out, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.wait(), out, errors)
