"""A process that has imported what commands need, and forks one for each command: an import of torch takes 5 s.

Arguments: the listening socket, the modules. In: on each connection three files and a line of JSON, which `forked.py`
sends. Out: the process's id from the process itself once it is set up, and its exit code when it has ended.
Invariants: no tensor operation and no thread before a fork, so that a child has all threads and pools of its own.
Modules are imported for the first connection, so a test run without commands pays nothing. Standard input is a pipe
whose other end the test run holds: the server ends with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any, TextIO


def python(arguments: list[str]) -> None:
    """What the interpreter does with its arguments: -c CODE, -m MODULE or the path of a script, and what follows."""
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), main.__dict__)  # noqa: S102  # it is a test's
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent))
        runpy.run_path(arguments[0], run_name="__main__")


def standard_stream(number: int, before: TextIO) -> TextIO:
    """A standard stream as the interpreter opens it: of a terminal, a pipe or a file, with or without a buffer."""
    at_once = isinstance(before, io.TextIOWrapper) and before.write_through
    binary = os.fdopen(number, "wb" if number else "rb", 0 if at_once else -1, closefd=False)
    return io.TextIOWrapper(
        binary, encoding=before.encoding, errors=before.errors, write_through=at_once,
        line_buffering=not at_once and (binary.isatty() or number == 2),
    )  # fmt: skip


def set_up(connection: socket.socket, files: list[int], asked: dict[str, Any]) -> None:
    """In the child: files, folder, environment, session and limit of a new process; then its id goes back."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, (file, name) in enumerate(zip(files, ("stdin", "stdout", "stderr"), strict=True)):
        os.dup2(file, number)
        os.close(file)
        stream = standard_stream(number, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if asked["new_session"]:
        os.setsid()
    os.umask(asked["umask"])
    os.chdir(asked["folder"])
    for name in os.environ.keys() - asked["environment"].keys():
        del os.environ[name]
    os.environ.update(asked["environment"])
    if asked["file_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["file_bytes"], asked["file_bytes"]))
    connection.sendall(b"%d\n" % os.getpid())
    connection.close()


def receive(connection: socket.socket) -> tuple[list[int], dict[str, Any]]:
    data, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(1 << 16)
    return files, json.loads(data)


def report_ends(running: dict[int, socket.socket]) -> None:
    """Send the exit codes of those that have ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as connection, contextlib.suppress(OSError):  # the test has given it up
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def serve(listener: socket.socket, modules: list[str]) -> list[str]:
    """Fork for each connection; returns in the child, with its arguments."""
    woken, wakes = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for each in (listener, woken, sys.stdin):
            selector.register(each, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if sys.stdin in ready:
                sys.exit()
            if woken in ready:
                os.read(woken, 1 << 16)
                report_ends(running)
            if listener in ready:
                connection, _ = listener.accept()
                files, asked = receive(connection)
                load(modules)
                child = os.fork()
                if not child:
                    listener.close()
                    for other in running.values():
                        other.close()
                    os.close(woken)
                    os.close(wakes)
                    set_up(connection, files, asked)
                    return list(asked["arguments"])
                running[child] = connection
                for file in files:
                    os.close(file)


def load(modules: list[str]) -> None:
    """Import the modules, once."""
    if all(name in sys.modules for name in modules):
        return
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    names = [(path / "comm").read_text().strip() for path in Path("/proc/self/task").glob("*")]  # none but on Linux
    others = [name for name in names if name != "jemalloc_bg_thd"]  # pyarrow's; jemalloc itself makes forks sound
    assert len(others) <= 1, f"a fork would lose threads: {others}"
    gc.freeze()  # a child neither searches nor copies what is here
    gc.enable()


if __name__ == "__main__":
    python(serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]))
