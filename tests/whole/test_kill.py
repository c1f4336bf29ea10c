"""Killed at any moment, in any way, the next run ends with the bytes of an undisturbed one and repeats nothing done.

Real processes, a real server, seeded moments: some anywhere, most at a seam, just after a file has appeared that begins
or ends something. `make soak` goes on with new seeds for an hour (SOAK_MINUTES), and counts.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.support.command import CORPUS
from tests.support.documents import TRAIN
from tests.support.forked import Forked
from tests.support.outputs import outputs
from tests.support.processes import workers_of
from tests.support.records import ROOT, Shared, baike, lines
from tests.support.server import Behaviour, Server
from tests.support.way_source import lay_source

WAY = ROOT / "tests" / "support" / "way.py"
ARCHIVE = "/baike2018qa.zip"
Process = subprocess.Popen[str] | Forked
ENDS_WITHIN_S = 15
STRIKES = 10
"""Of each seed, of which two are struck outside soak."""
FIRST_SEED = int(os.environ.get("SOAK_SEED", "100"))
SOAK_S = 60 * float(os.environ.get("SOAK_MINUTES", "5"))

RAW, DOCUMENTS, DEDUP, DECONTAMINATE, QUALITY, TOKENIZER, PACKED, CHAT, MODEL = (
    "raw/baike2018qa", "documents/baike2018qa", "dedup", "decontaminate", "quality", "tokenizer",
    "packed/baike2018qa", "chat/baike2018qa", "models/one",
)  # fmt: skip
STAGES = {
    RAW: "download", DOCUMENTS: "ingest", DEDUP: "dedup", DECONTAMINATE: "decontaminate", QUALITY: "quality",
    TOKENIZER: "tokenizer", PACKED: "pack", CHAT: "pack --form chat", MODEL: "train",
}  # fmt: skip
SEAMS = {
    RAW: ("baike2018qa.zip.part", ".baike2018qa.zip.part.json", "baike2018qa.zip", "ledger.json"),
    DOCUMENTS: ("part-00000.parquet", "part-00003.parquet", "rejected/part-00002.parquet", "timings.json"),
    DEDUP: ("keys/baike2018qa/part-00000.parquet", "keys/baike2018qa/part-00004.parquet", "passages.parquet"),
    DECONTAMINATE: ("evals/exam.jsonl", "hits.parquet", "ledger.json"),
    QUALITY: ("model.safetensors", "scores/baike2018qa/part-00002.parquet", "lists/baike2018qa.json", "ledger.json"),
    TOKENIZER: ("tokenizer.json", "tokenizer_config.json", "ledger.json"),
    PACKED: ("train/data-00000.arrow", "train/data-00004.arrow", "train/state.json", "timings.json", "ledger.json"),
    CHAT: ("train/data-00000.arrow", "train/data-00004.arrow", "dataset_dict.json", "ledger.json"),
    MODEL: ("run.json", ".saving/checkpoint-4", "checkpoint-4", "checkpoint-40", "checkpoint-120", "model.safetensors"),
}
"""By stage, the files after which one is struck when it is to be at a seam."""


@dataclass
class Tally:
    """What was done to how many runs."""

    runs: int = 0
    ways: int = 0
    """Workspaces that came through."""
    strikes: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    """What was under way when it was struck."""

    def add(self, other: Tally) -> None:
        self.runs += other.runs
        self.ways += other.ways
        self.strikes += other.strikes
        self.stages += other.stages

    def __str__(self) -> str:
        def listed(counter: Counter[str]) -> str:
            return ", ".join(f"{name} {counter[name]:,}" for name in sorted(counter))

        return (
            f"{self.ways:,} ways in {self.runs:,} runs, {self.strikes.total():,} strikes "
            f"({listed(self.strikes)}; during {listed(self.stages)})"
        )


@dataclass(frozen=True)
class Course:
    """One way, where it begins, and what an undisturbed run leaves."""

    arguments: tuple[str, ...]
    expected: dict[str, bytes]
    seconds: float

    @property
    def stages(self) -> list[str]:
        return list(SEAMS)[: 8 + len(self.arguments[2:])]


@pytest.fixture(scope="module")
def source(shared: Shared) -> Iterator[tuple[str, str]]:
    """The URL of an archive that comes in half a second and whose way to rows takes some more, and an exam to avoid."""
    folder = shared("kill-source", lay_source)
    with Server({ARCHIVE: (folder / "baike2018qa.zip").read_bytes()}) as server:
        server.always(ARCHIVE, Behaviour(piece_bytes=30_000, pause_s=0.02))
        yield server.url(ARCHIVE), str(folder / "exam.jsonl")


@pytest.fixture(scope="module")
def rows(source: tuple[str, str], shared: Shared) -> Course:
    """The way to rows."""

    def make(folder: Path) -> None:
        (folder / "seconds").write_text(str(walk(source, folder / "workspace").seconds))

    folder = shared("kill-rows", make)
    return Course(source, outputs(folder / "workspace"), float((folder / "seconds").read_text()))


@pytest.fixture(scope="module")
def model(source: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The way to a model: one layer, which trains from random weights in a few seconds."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("model")
    config = GPT2Config(
        vocab_size=400, n_positions=128, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder / "init")
    return walk((*source, str(folder / "init")), folder / "workspace")


def start(workspace: Path, arguments: tuple[str, ...], *, fork: bool = False) -> Process:
    command: list[str | Path] = [sys.executable, WAY, workspace, *arguments]
    if fork:
        return Forked(command, start_new_session=True)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip


def walk(arguments: tuple[str, ...], workspace: Path) -> Course:
    """What an undisturbed run leaves, and how long it takes here."""
    begin = time.monotonic()
    process = start(workspace, arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return Course(arguments, outputs(workspace), time.monotonic() - begin)


def finished(workspace: Path) -> dict[str, tuple[int, int]]:
    """Pieces and stages that are finished, with what changes when a file is written again."""
    found = [
        *(workspace / DOCUMENTS).glob("part-*.parquet"),
        *(workspace / DEDUP).glob("keys/*/part-*.parquet"),
        *(workspace / QUALITY).glob("scores/*/part-*.parquet"),
        *(workspace / PACKED).glob("*/data-*.arrow"),
        *(workspace / CHAT).glob("*/data-*.arrow"),
        *(workspace / folder / "ledger.json" for folder in SEAMS),
    ]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found if path.exists()}


def stage_of(workspace: Path, course: Course) -> str:
    """The first stage that is not finished."""
    open_stages = [stage for stage in course.stages if not (workspace / stage / "ledger.json").exists()]
    return STAGES[open_stages[0]] if open_stages else "end"


def wait_for_moment(process: Process, workspace: Path, course: Course, chance: random.Random) -> bool:
    """Wait until it is time to strike; whether there is still something to be struck."""
    seams = [
        workspace / stage / name
        for stage in course.stages
        for name in SEAMS[stage]
        if not (workspace / stage / "ledger.json").exists() and not (workspace / stage / name).exists()
    ]
    if not seams or chance.random() < 0.2:
        try:
            process.wait(chance.uniform(0.2, course.seconds * 0.8))
        except subprocess.TimeoutExpired:
            return True
        return False
    seam, pause = chance.choice(seams[:3]), chance.choice((0.0, 0.005, 0.05, 0.3)) * chance.random()
    while process.poll() is None:
        if seam.exists():
            time.sleep(pause)
            return process.poll() is None
        time.sleep(0.001)
    return False


def strike(process: Process, how: str, chance: random.Random) -> str:
    """Kill the command, or one of its workers where it has some, or ask it to stop; what was done, "" if nothing."""
    try:
        if how == "worker":
            workers = workers_of(psutil.Process(process.pid))
            if workers:
                chance.choice(workers).kill()
                return how
            how = "kill"
        process.send_signal({"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}[how])
    except (psutil.NoSuchProcess, psutil.ZombieProcess, ProcessLookupError):
        return ""
    return how


def survives(seed: int, course: Course, workspace: Path, tally: Tally, *, fork: bool = False) -> None:
    """Strike at seeded random moments until a run comes through."""
    chance = random.Random(seed)
    for _ in range(60):
        if run_and_strike(course, workspace, chance, tally, fork=fork):
            tally.ways += 1
            return
    pytest.fail("no run came through")


def run_and_strike(course: Course, workspace: Path, chance: random.Random, tally: Tally, *, fork: bool) -> bool:
    """One run, perhaps struck; whether it came through."""
    before = finished(workspace)
    process = start(workspace, course.arguments, fork=fork)
    try:
        children: list[psutil.Process] = []
        how = stage = ""
        if wait_for_moment(process, workspace, course, chance):
            stage = stage_of(workspace, course)
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
            how = strike(process, chance.choice(("kill", "kill", "worker", "worker", "interrupt", "terminate")), chance)
            if how:
                tally.strikes[how] += 1
                tally.stages[stage] += 1
        begin = time.monotonic()
        out, errors = process.communicate(timeout=100)
        tally.runs += 1
        if how not in {"", "worker"}:  # the death of a worker may come when its piece is done, and be no matter
            assert time.monotonic() - begin < ENDS_WITHIN_S, f"{how} during {stage} took too long: {errors}"
        _, alive = psutil.wait_procs(children, timeout=ENDS_WITHIN_S)
        assert not alive, f"workers outlive their command: {alive}"
    except subprocess.TimeoutExpired:
        pytest.fail(f"{how} during {stage}, and the command hangs")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    after = finished(workspace)
    again = [path for path, stamp in before.items() if after.get(path) != stamp]
    assert not again, f"finished work was done again: {again}"
    if process.returncode:
        assert how, f"a run failed that nobody struck: {errors}"
        return False
    assert out.strip() == "done"
    assert outputs(workspace) == course.expected
    return True


@pytest.mark.parametrize("seed", [pytest.param(n, marks=pytest.mark.slow if n > 1 else ()) for n in range(5)])
def test_killed_at_random_moments(seed: int, rows: Course, tmp_path: Path) -> None:
    """With an even seed the runs are forked: that shows the same but for what happens while a process imports."""
    tally = Tally()
    while tally.strikes.total() < STRIKES:
        survives(1000 * seed + tally.ways, rows, tmp_path / f"workspace-{tally.ways}", tally, fork=seed % 2 == 0)
    print(tally)


@pytest.mark.slow
def test_soak(rows: Course, model: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New seeds until the time is over, a third of it on the way to a model; a failure does not end it."""
    deadline = time.monotonic() + SOAK_S
    tallies = {"rows": Tally(), "model": Tally()}
    spent = {"rows": 0.0, "model": 0.0}
    failures: list[str] = []
    seed = FIRST_SEED
    while time.monotonic() < deadline:
        name = "model" if spent["model"] * 2 <= spent["rows"] else "rows"
        workspace, begin = tmp_path / f"{name}-{seed}", time.monotonic()
        try:
            survives(seed, {"rows": rows, "model": model}[name], workspace, tallies[name])
        except (AssertionError, pytest.fail.Exception) as error:
            failures.append(f"seed {seed}, way to {name}: {str(error)[:2000]}")  # its workspace stays
        else:
            shutil.rmtree(workspace)
        spent[name] += time.monotonic() - begin
        with capsys.disabled():
            print(
                f"\nseed {seed}, {name}: {time.monotonic() - begin:.0f} s; so far {tallies[name]}", end="", flush=True
            )
        seed += 1
    total = Tally()
    with capsys.disabled():
        print(f"\nSoak of {SOAK_S / 60:g} minutes, seeds {FIRST_SEED} to {seed - 1}:")
        for name, tally in tallies.items():
            print(f"  way to {name}, {spent[name] / 60:.1f} minutes: {tally}")
            total.add(tally)
        print(f"  in all: {total}; {len(failures)} failures")
        print("".join(f"  FAILURE: {failure}\n" for failure in failures), end="")
    assert not failures
    assert set(total.strikes) == {"kill", "worker", "interrupt", "terminate"} or SOAK_S < 300


def test_a_dead_worker_is_named(source: tuple[str, str], tmp_path: Path) -> None:
    process = start(tmp_path / "workspace", source, fork=True)
    documents = tmp_path / "workspace" / DOCUMENTS
    deadline = time.monotonic() + 60
    while not list(documents.glob("part-*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    strike(process, "worker", random.Random(1))
    begin = time.monotonic()
    _, errors = process.communicate(timeout=60)
    if process.returncode:  # the last piece may have been done before the strike
        assert "WorkerError" in errors
        assert time.monotonic() - begin < ENDS_WITHIN_S
        assert not (documents / "ledger.json").exists()


def test_a_worker_without_memory_ends_the_command_by_name(tmp_path: Path) -> None:
    """Real workers are in the middle of a piece when they may take no more memory."""
    (tmp_path / "fetched").mkdir()
    records = [baike(n, answer=f"说来话长，第{n}次。" * 20) for n in range(60_000)]
    records += [baike(n, answer="长话短说。" * 900_000) for n in range(6)]  # take more at once than any before
    given, workspace = tmp_path / "fetched" / TRAIN, tmp_path / "workspace"
    given.write_bytes(lines(records))
    command: list[str | Path] = [
        CORPUS, "ingest", "--source", given.parent, "--workers", "2", "--workspace", workspace,
        "--no-rule", "repeated_spans", "--no-dedup",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    documents = workspace / DOCUMENTS
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 1000 for path in documents.glob(".part-*.tmp")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for worker in workers_of(psutil.Process(process.pid)):
        limit = worker.memory_info().vms + (4 << 20)
        worker.rlimit(psutil.RLIMIT_AS, (limit, limit))
    begin = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert time.monotonic() - begin < ENDS_WITHIN_S
    assert re.search("Error: (out of memory|a worker process died)", errors)
    assert "fewer --workers" in errors
    assert "Traceback" not in errors
    assert not (documents / "ledger.json").exists()
    subprocess.run(command, check=True, capture_output=True)
