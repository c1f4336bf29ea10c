"""A forked command is what a started one is, where the tests that fork say so."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import CORPUS
from tests.support.forked import Forked, run

SHOWN = """
import json, os, resource, signal, sys
handlers = [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)]
blocked = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
mask = os.umask(0)
kinds = [sys.stdin.isatty(), sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors, sys.stderr.line_buffering]
print(json.dumps([sys.argv, os.getcwd(), dict(os.environ), os.getsid(0) == os.getpid(), mask, handlers, blocked, kinds,
                  resource.getrlimit(resource.RLIMIT_FSIZE)[0], __name__]))
print("an error", file=sys.stderr)
sys.exit(7)
"""
THREADS = """
import numpy, pyarrow, pyarrow.compute, torch
torch.set_num_threads(2)
ones = torch.ones(400, 400, requires_grad=True)
(ones @ ones).sum().backward()
table = pyarrow.table({"a": numpy.arange(1_000_000) % 7})
print(torch.get_num_threads(), int(ones.grad[0, 0]), table.group_by("a", use_threads=True).aggregate([]).num_rows)
"""


def test_it_has_what_it_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SHOWN, "--a", "文"]
    environment = os.environ | {"CORPUS_WORKSPACE": "elsewhere"}
    process = Forked(command, cwd=tmp_path, env=environment, start_new_session=True, file_bytes=5000)
    forked = (*process.communicate(), process.returncode)
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, soft[1]))
    try:
        started = subprocess.Popen(
            command, cwd=tmp_path, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    out, errors = started.communicate()
    assert json.loads(forked[0]) == json.loads(out)
    assert forked[1:] == (errors, started.returncode) == ("an error\n", 7)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it_and_is_its_exit_code(number: int) -> None:
    process = Forked([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"])
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(30) == -number
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    process.kill()  # it has ended: nothing happens


def test_it_can_be_waited_for_again(tmp_path: Path) -> None:
    with Forked([sys.executable, "-c", "import time; print('a' * 200_000); time.sleep(0.2); print('b')"]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.05)
        out, _ = process.communicate(timeout=30)
    assert out == "a" * 200_000 + "\nb\n"


def test_what_is_read_at_the_start_is_refused() -> None:
    with pytest.raises(AssertionError, match="PYTHONIOENCODING"):
        run([CORPUS, "datasets"], env=os.environ | {"PYTHONIOENCODING": "ascii"})


def test_threads_of_torch_and_pyarrow_run_in_it() -> None:
    done = run([sys.executable, "-c", THREADS], torch=True)
    assert done.stdout == "2 800 7\n", done.stderr
