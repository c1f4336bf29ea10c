"""Claims of a workspace in a storage: one writer, or jobs of one kind; the dead lose theirs, and no two take it."""

from __future__ import annotations

import json
import os
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from corpus.pipeline.errors import BusyError
from corpus.pipeline.store import Store, Timing, open_store
from corpus.pipeline.store.claims import FOLDER, Claim, Holding, held, read_all, take
from tests.support.remote import QUICK


def elsewhere() -> Claim:
    """The claim of a process of another machine."""
    return Claim(command="ingest", kind="", host="other", machine="another boot")


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def timing(self, **values: float) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep, **values)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store on the disk."""
    return open_store(str(tmp_path / "bucket"), retry=QUICK)


def lay(store: Store, name: str, claim: Claim) -> None:
    store.write(f"{FOLDER}/{name}", claim.to_json())


def test_a_claim_is_there_while_it_is_held_and_names_no_more_than_its_process(store: Store) -> None:
    with held(store, "pack", "", Timing()):
        (key,) = store.keys(FOLDER)
        assert key == f"{FOLDER}/00000001"
        said = json.loads(store.read(key))
        assert said.keys() == {"beat", "command", "host", "kind", "machine", "pid", "started", "token"}
    assert not store.keys(FOLDER)


def test_a_second_command_is_refused_with_the_name_of_the_first(store: Store) -> None:
    clock = Clock()
    with (
        held(store, "pack", "", Timing()),
        pytest.raises(BusyError, match=r"bucket is being written by `corpus pack`, process \d+ on"),
    ):
        take(store, Claim(command="ingest", kind=""), clock.timing())
    assert 2 <= clock.now < 4  # its process is known to be alive


@pytest.mark.parametrize(("mine", "theirs", "goes"), [("a", "a", True), ("a", "b", False), ("", "a", False)])
def test_jobs_of_one_kind_hold_it_together(store: Store, mine: str, theirs: str, *, goes: bool) -> None:
    with held(store, "pack --shard 1/2", theirs, Timing()):
        claim = Claim(command="pack --shard 2/2", kind=mine)
        if goes:
            take(store, claim, Clock().timing()).release()
        else:
            with pytest.raises(BusyError):
                take(store, claim, Clock().timing())
        assert len(store.keys(FOLDER)) == 1


def test_a_claim_of_another_machine_is_dead_once_it_did_not_change_for_long(store: Store) -> None:
    clock, said = Clock(), list[str]()
    lay(store, "00000007", elsewhere())
    holding = take(store, Claim(command="pack", kind=""), clock.timing(dead_s=100), said.append)
    assert 100 <= clock.now < 102
    process = f"`corpus ingest`, process {os.getpid()} on other"
    assert said == [f"waiting to see whether {process} is alive: up to 100 s"]
    assert store.keys(FOLDER) == [f"{FOLDER}/00000008"]
    holding.release()


def test_a_claim_of_another_machine_that_changes_is_alive(store: Store) -> None:
    clock, other = Clock(), elsewhere()
    lay(store, "00000001", other)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if 20 < clock.now < 21:
            lay(store, "00000001", replace(other, beat=1))

    timing = replace(clock.timing(dead_s=100), sleep=sleep)
    with pytest.raises(BusyError, match="on other"):
        take(store, Claim(command="pack", kind=""), timing)
    assert clock.now < 30


def test_a_claim_of_a_process_that_is_gone_from_this_machine_is_dead_at_once(store: Store) -> None:
    clock = Clock()
    lay(store, "00000001", Claim(command="ingest", kind="", pid=2**22 - 1, started="1"))
    lay(store, "job-x", Claim(command="ingest", kind="x", pid=2**22 - 1, started="1"))
    with_it = take(store, Claim(command="pack", kind=""), clock.timing())
    assert clock.now < 2
    assert store.keys(FOLDER) == [f"{FOLDER}/00000002"]
    with_it.release()


def test_of_many_takers_of_a_dead_claim_one_holds_it_at_a_time(store: Store) -> None:
    lay(store, "00000001", elsewhere())
    inside, most, timing = [0], [0], Timing(dead_s=0.2, wait_s=60, beat_s=60)
    lock = threading.Lock()

    def work(number: int) -> None:
        timed = replace(timing, sleep=lambda seconds: time.sleep(seconds / 50))
        claim = Claim(command="pack", kind="", machine=f"boot {number}")
        holding = take(store, claim, timed)
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        with lock:
            inside[0] -= 1
        holding.release()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert most == [1]
    assert not store.keys(FOLDER)


def test_a_holder_whose_claim_was_taken_writes_no_more(store: Store) -> None:
    holding = take(store, Claim(command="pack", kind=""), Timing(beat_s=0.01))
    (key,) = store.keys(FOLDER)
    wait_until(lambda: read_all(store)[key].beat > 1)
    store.delete(key)
    wait_until(lambda: is_lost(holding))
    with pytest.raises(BusyError, match="its claim was taken away"):
        holding.check()
    holding.release()
    assert not store.keys(FOLDER)


def test_a_holder_that_is_followed_by_another_writer_has_lost(store: Store) -> None:
    holding = take(store, Claim(command="pack", kind=""), Timing(beat_s=0.01))
    lay(store, "00000002", elsewhere())
    wait_until(lambda: is_lost(holding))
    with pytest.raises(BusyError, match="has taken over"):
        holding.check()
    holding.release()


def test_a_holder_that_cannot_reach_the_storage_writes_no_more_once_others_may_take_it_for_dead(store: Store) -> None:
    clock = Clock()
    holding = take(store, Claim(command="pack", kind=""), clock.timing(beat_s=60))
    clock.sleep(119)
    holding.check()
    clock.sleep(2)
    with pytest.raises(BusyError, match="no sign of life for 120 s, and could not reach the storage"):
        holding.check()
    holding.release()


def is_lost(holding: Holding) -> bool:
    try:
        holding.check()
    except BusyError:
        return True
    return False


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        time.sleep(0.005)
    pytest.fail("it did not come")


def test_a_store_that_cannot_create_has_no_claims(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        out.writestr("x", b"1")
    store = open_store(f"zip://::{tmp_path / 'a.zip'}", retry=QUICK)
    with held(store, "pack", "", Timing()) as holding:
        assert holding is None
