"""Claims: who writes in a workspace that lies in a storage, where no lock of the operating system reaches.

In: a store, and what the claimant is. Out: an object below `.claims/` while the claim is held.
A writer claims the workspace alone; jobs of one kind claim it together. A claimant creates its object, then looks at
all others, and withdraws its own where one of them conflicts; so of two that come at once none or one goes on. The
object of a writer has the next free number and is created with `write_if_absent`, so that two writers that take a dead
one's place create the same object, and one does.
A thread of the holder writes its object anew every `beat_s`, with a counter. A claim whose object did not change for
`dead_s`, by the clock of the one who looks, is dead, and so is one of a process that is gone from this machine; dead
claims are deleted by the next holder. A holder whose claim is gone, or is followed by another writer's, has lost it and
writes nothing more.
Invariants: clocks of two machines are never compared. Where a store cannot create an object only if it is absent there
is no claim: `can_claim` is false.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from corpus.pipeline.errors import BusyError, CorpusError, ObjectMissingError, StoreError
from corpus.pipeline.store.objects import Store

FOLDER = ".claims"
_HINT = "Wait until it is done, or give this command another --workspace."
_PAUSE_S = 0.5
_READERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How claims are kept alive and found dead."""

    beat_s: float = 20.0
    """How often a holder shows that it is alive."""
    dead_s: float = 120.0
    """How long a claim does not change before it is dead."""
    wait_s: float = 2.0
    """How long a command waits for a holder that is alive."""
    job_wait_s: float = 30.0
    """How long a job waits for it."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def _machine() -> str:
    """The boot of this machine, and the name space of its process ids; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process of this machine started; empty where it is gone, or the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a claim's object says."""

    command: str
    kind: str
    """What jobs that hold the workspace together have in common; empty for a writer."""
    host: str = field(default_factory=socket.gethostname)
    machine: str = field(default_factory=_machine)
    """Where process ids mean the same processes."""
    pid: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: _started(os.getpid()))
    token: str = field(default_factory=lambda: os.urandom(8).hex())
    beat: int = 0

    def to_json(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"

    @property
    def beside(self) -> str:
        """What the names of claims begin with that it never meets: those of jobs of its kind."""
        return f"{FOLDER}/job-{hashlib.sha256(self.kind.encode()).hexdigest()[:16]}-" if self.kind else ""

    def meets(self, other: Claim) -> bool:
        """Whether both cannot hold the workspace at once."""
        return not self.kind or self.kind != other.kind

    @property
    def lives(self) -> bool | None:
        """Whether its process is alive, where it runs or ran on this machine; else None."""
        if not self.started or not self.machine or self.machine != _machine():
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"`corpus {self.command}`, process {self.pid} on {self.host}"


class Holding:
    """A claim that is held, until `release`."""

    def __init__(self, store: Store, key: str, claim: Claim, timing: Timing) -> None:
        self._store, self._key, self._claim, self._timing = store, key, claim, timing
        self._ended = threading.Event()
        self._lost = ""
        self._last = timing.clock()
        """When it last showed that it is alive."""
        self._suspects: set[str] = set()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise BusyError where the claim was lost, or others may take it for dead by now."""
        if not self._lost and self._timing.clock() - self._last > self._timing.dead_s:
            self._lost = "could not reach the storage"
        if self._lost:
            raise BusyError(
                f"{self._store.shown}: this command has shown no sign of life for {self._timing.dead_s:.0f} s, and "
                f"{self._lost}",
                hint="Run it again when that is done: what it has finished is kept.",
            )

    def release(self) -> None:
        """End the claim."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(StoreError):  # it dies then
                self._store.delete(self._key)

    def _beat(self) -> None:
        while not self._ended.wait(self._timing.beat_s) and not self._lost:
            with contextlib.suppress(StoreError):  # the next beat may come through
                self._look()
                if not self._lost:
                    self._claim = replace(self._claim, beat=self._claim.beat + 1)
                    self._store.write(self._key, self._claim.to_json())
                    self._last = self._timing.clock()

    def _look(self) -> None:
        others = read_all(self._store, self._claim)
        own = others.pop(self._key, None)
        if (own is None or own.token != self._claim.token) if not self._claim.kind else not self._is_there():
            self._lost = "its claim was taken away"
        later = [each for key, each in others.items() if not each.kind and (self._claim.kind or key > self._key)]
        writers = {each.token: each for each in later}
        for token in self._suspects & writers.keys():  # one that looks alone has withdrawn by now
            self._lost = f"{writers[token]} has taken over"
        self._suspects = {*writers}

    def _is_there(self) -> bool:
        try:
            self._store.info(self._key)
        except ObjectMissingError:
            return False
        return True


def read_all(store: Store, claim: Claim | None = None) -> dict[str, Claim]:
    """The claims in a workspace, by key; without those that `claim` never meets, of which there may be hundreds."""
    beside = claim.beside if claim else ""
    keys = [key for key in store.keys(FOLDER) if not beside or not key.startswith(beside)]

    def read(key: str) -> Claim | None:
        try:
            return Claim(**json.loads(store.read(key)))
        except (ObjectMissingError, ValueError, TypeError):  # released meanwhile, or none of ours
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        return {key: found for key, found in zip(keys, pool.map(read, keys), strict=True) if found}


class _Watch:
    """The claims that were seen, and since when they are as they are, by this process's clock."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._seen: dict[str, tuple[Claim, float]] = {}
        self._alive: set[str] = set()

    def see(self, found: dict[str, Claim]) -> None:
        now = self._timing.clock()
        for key, claim in found.items():
            before = self._seen.get(key)
            if before is None or before[0] != claim:
                if before and before[0].token == claim.token:
                    self._alive.add(claim.token)
                self._seen[key] = claim, now

    def is_alive(self, claim: Claim) -> bool:
        """Whether it has changed while it was watched, or its process is known to be alive."""
        return claim.token in self._alive or claim.lives is True

    def is_dead(self, key: str, claim: Claim) -> bool:
        """Whether it did not change for long, or its process is known to be gone."""
        seen, since = self._seen.get(key, (None, 0.0))
        return seen == claim and (claim.lives is False or self._timing.clock() - since >= self._timing.dead_s)


def take(store: Store, claim: Claim, timing: Timing, waits: Callable[[str], object] = lambda _: None) -> Holding:
    """Claim a workspace; waits until a claim that may be dead is known to be alive or dead.

    Raises:
        BusyError: another command holds it and is alive.

    """
    watch, begun, said = _Watch(timing), timing.clock(), False
    while True:
        found = read_all(store, claim)
        watch.see(found)
        meeting = [each for key, each in found.items() if claim.meets(each) and not watch.is_dead(key, each)]
        if not meeting and (holding := _create(store, claim, timing, watch, found)):
            return holding
        if meeting and timing.clock() - begun > (timing.job_wait_s if claim.kind else timing.wait_s):
            for other in filter(watch.is_alive, meeting):
                raise BusyError(f"{store.shown} is being written by {other}", hint=_HINT)
            if not said:
                waits(f"waiting to see whether {meeting[0]} is alive: up to {timing.dead_s:.0f} s")
                said = True
        timing.sleep(random.uniform(_PAUSE_S / 2, _PAUSE_S))  # noqa: S311  # a wait is no secret


def _create(store: Store, claim: Claim, timing: Timing, watch: _Watch, found: dict[str, Claim]) -> Holding | None:
    """Create the object, unless another claimant was faster; the dead ones are then deleted."""
    numbers = [int(key.rpartition("/")[2]) for key in found if key.rpartition("/")[2].isdecimal()]
    key = f"{claim.beside}{claim.token}" if claim.kind else f"{FOLDER}/{max(numbers, default=0) + 1:08d}"
    if not store.write_if_absent(key, claim.to_json()):
        return None
    others = read_all(store, claim)
    others.pop(key, None)
    dead = [each for each, other in others.items() if watch.is_dead(each, other)]
    if any(claim.meets(other) for each, other in others.items() if each not in dead):
        store.delete(key)
        return None
    for each in dead:
        store.delete(each)
    return Holding(store, key, claim, timing)


@contextlib.contextmanager
def held(
    store: Store, command: str, kind: str, timing: Timing, waits: Callable[[str], object] = lambda _: None
) -> Iterator[Holding | None]:
    """Hold a claim while the block runs; None where the store cannot claim."""
    if not store.can_create:
        yield None
        return
    holding = take(store, Claim(command=command, kind=kind), timing, waits)
    try:
        yield holding
    except CorpusError:
        holding.check()  # what failed may have failed for that
        raise
    finally:
        holding.release()
