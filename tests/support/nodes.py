"""Nodes of a cluster as network namespaces of this machine, each with an address and a cable of its own.

In: a number of nodes. Out: processes on them, a hub that all reach, cables that can be cut.
Invariant: the namespaces lead nowhere else and end with the block, so nothing listens outside them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

NEEDED = ("unshare", "nsenter", "ip")
HUB = "192.0.2.254"
CABLE = "cable"
"""Name of the network interface of each node."""
_CLONE_NEWNET = 0x40000000
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def missing() -> str:
    """What namespaces lack here, for the reason of a skip; empty if nothing."""
    found = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
    if found:
        return f"{', '.join(found)} not installed (Debian: iproute2 util-linux)"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


def address(node: int) -> str:
    """The address of a node, numbered from 1."""
    return f"192.0.2.{node}"


class Nodes:
    """A hub, which is node 0, and nodes around it, while the block runs."""

    def __init__(self, count: int) -> None:
        self._anchors: list[subprocess.Popen[bytes]] = []
        self._started: list[subprocess.Popen[str]] = []
        self._count = count

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.__exit__)
            for _ in range(self._count + 1):
                anchor = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=-1)
                self._anchors.append(anchor)
                assert anchor.stdout is not None
                anchor.stdout.readline()  # it is in its namespace
            self._ip(0, "link add bridge type bridge", "link set bridge up", f"address add {HUB}/24 dev bridge")
            self._ip(0, "link set lo up")
            for node in range(1, self._count + 1):
                peer = f"peer name {CABLE} netns {self._anchors[node].pid}"
                self._ip(0, f"link add port{node} type veth {peer}", f"link set port{node} master bridge up")
                self._ip(node, "link set lo up", f"address add {address(node)}/24 dev {CABLE}", f"link set {CABLE} up")
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            self.kill(process)
        for anchor in self._anchors:
            anchor.kill()
            anchor.communicate()

    def start(self, node: int, command: Sequence[str | Path], environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """A process on a node, in a session of its own."""
        process = subprocess.Popen(
            [*self._inside(node), *map(str, command)], env={**os.environ, **environment}, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """End a process and its children, as a node that loses its power does."""
        for session in {process.pid, *_sessions_below(process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()

    def cut(self, node: int) -> None:
        """Pull the cable of a node: packets get lost, connections stay open."""
        self._ip(0, f"link set port{node} down")

    def mend(self, node: int) -> None:
        """Put it back."""
        self._ip(0, f"link set port{node} up")

    @contextlib.contextmanager
    def on_hub(self) -> Iterator[None]:
        """This thread is on the hub: what listens now listens there."""
        with (
            Path("/proc/thread-self/ns/net").open() as home,
            Path(f"/proc/{self._anchors[0].pid}/ns/net").open() as hub,
        ):
            _enter(hub.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def _inside(self, node: int) -> list[str]:
        return ["nsenter", "--target", str(self._anchors[node].pid), "--net"]

    def _ip(self, node: int, *commands: str) -> None:
        for command in commands:
            words = [*self._inside(node), "ip", *command.split()]
            done = subprocess.run(words, env={**os.environ, "PATH": _PATH}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stderr}"


def _sessions_below(pid: int) -> set[int]:
    """Process groups of the children: torchrun gives each of its workers one."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        return {os.getpgid(child.pid) for child in psutil.Process(pid).children(recursive=True)}
    return set()


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
