"""What a disk can refuse, at every stage: no room, no writing, no permission, a name too long.

Each command ends with 1 and says where and what to do; nothing half-finished looks finished; when the disk is willing
again, the same command ends with the bytes of an undisturbed one. Full and read-only disks are tmpfs mounts, which only
root may make; root is bound by permissions only without the capability to override them, so it starts the command so.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from corpus.pipeline.workspace.files import FINISHED_MODE
from corpus.pipeline.workspace.layout import Workspace
from tests.support import forked
from tests.support.command import CORPUS, corpus
from tests.support.documents import TRAIN, VALID
from tests.support.outputs import outputs
from tests.support.packed import lay_all
from tests.support.records import Shared, baike, lines
from tests.support.server import GOOD, Behaviour, Server
from tests.support.training import start as train

BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
ARCHIVE = "/baike2018qa.zip"
STAGES = {
    "download": "raw/baike2018qa",
    "clean": "documents/baike2018qa",
    "tokenizer": "tokenizer",
    "pack": "packed/baike2018qa",
    "train": "models/one",
}
"""The command of each stage and its folder, in order."""


@dataclass(frozen=True)
class Way:
    """The arguments of each stage's command, and a workspace in which all of them were run without disturbance."""

    server: Server
    arguments: dict[str, tuple[str, ...]]
    workspace: Path
    expected: dict[str, bytes]

    def lay(self, workspace: Path, stage: str) -> None:
        """Copy what there is before a stage."""
        for name, folder in STAGES.items():
            if name == stage:
                return
            shutil.copytree(self.workspace / folder, workspace / folder)

    def made_by(self, stage: str) -> int:
        """Bytes that a stage writes."""
        return sum(len(data) for name, data in self.expected.items() if name.startswith(STAGES[stage]))


def start(
    *arguments: str | Path, workspace: Path, code: int, prefix: Sequence[str] = (), limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, perhaps through another or with a limit to the size of files; a traceback is always a failure."""
    command = [*prefix, CORPUS, *arguments, "--workspace", workspace]
    if prefix:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    else:
        done = forked.run(command, file_bytes=limit)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr + done.stdout
    assert "internal error" not in done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], workspace: Path, stage: str, says: str) -> None:
    """The message names the place and what to do, and the stage does not look finished."""
    error = done.stderr[done.stderr.index("Error:") :]
    assert str(workspace) in error
    assert says in error
    assert len(error.strip().splitlines()) <= 4
    assert not (workspace / STAGES[stage] / "ledger.json").exists()
    status = json.loads(corpus("status", "--json", "--workspace", workspace, folder=workspace.parent).stdout)
    area = STAGES[stage].partition("/")[0]
    assert "finished" not in {row["state"] for row in status if row["area"] == area}
    corpus("verify", "--workspace", workspace, folder=workspace.parent)


def rerun(way: Way, stage: str, workspace: Path) -> None:
    """The same command when the disk is willing again, in this process: its workers are no matter here."""
    alone = ("--workers", "1") if "--workers" in way.arguments[stage] else ()
    corpus(stage, *way.arguments[stage], *alone, "--workspace", workspace, folder=workspace.parent)


def whole(way: Way, workspace: Path, stage: str) -> None:
    """The stage's outputs are those of an undisturbed one."""
    expected = {name: data for name, data in way.expected.items() if name.startswith(STAGES[stage])}
    assert {name: data for name, data in outputs(workspace).items() if name in expected} == expected
    corpus("verify", "--workspace", workspace, folder=workspace.parent)


@pytest.fixture(scope="module")
def way(shared: Shared) -> Iterator[Way]:
    """All stages on text that does not compress much."""
    folder = shared("disk", make)
    with Server({ARCHIVE: (folder / "baike2018qa.zip").read_bytes()}) as server:
        workspace = folder / "workspace"
        yield Way(server, arguments(folder, server), workspace, outputs(workspace))


def make(folder: Path) -> None:
    """Lay an archive and a random model into a folder, and run all stages on them in a workspace there."""
    from transformers import GPT2Config, GPT2LMHeadModel

    chance = random.Random(11)
    records = [
        baike(number, answer="".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(300)))
        for number in range(600)
    ]
    with zipfile.ZipFile(folder / "baike2018qa.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr(TRAIN, lines(records[:550]))
        out.writestr(VALID, lines(records[550:]))
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=400, n_positions=128, n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).save_pretrained(folder / "init")  # fmt: skip
    with Server({ARCHIVE: (folder / "baike2018qa.zip").read_bytes()}) as server:
        for stage, given in arguments(folder, server).items():
            corpus(stage, *given, "--workspace", "workspace", folder=folder)


def arguments(folder: Path, server: Server) -> dict[str, tuple[str, ...]]:
    """What each stage's command is given."""
    name = ("--dataset", "baike2018qa")
    return {
        "download": (*name, "--source", server.url(ARCHIVE)),
        "clean": (*name, "--workers", "2"),
        "tokenizer": ("--vocab-size", "400"),
        "pack": (*name, "--workers", "2", "--seq-length", "128"),
        "train": (
            *name, "--init", str(folder / "init"), "--run", "one", "--max-steps", "6", "--batch-size", "4",
            "--save-steps", "2", "--log-steps", "1", "--threads", "1", "--device", "cpu",
        ),
    }  # fmt: skip


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small disk of its own; called again, it changes its options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def give(options: str) -> Path:
        nonlocal mounted
        how = f"remount,{options}" if mounted else options
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", how, "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"only root may mount a small disk here: {done.stderr.strip()}")
        mounted = True
        return place

    if shutil.which("mount") is None or sys.platform != "linux":
        pytest.skip("no tmpfs here")
    yield give
    if mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def bound() -> tuple[str, ...]:
    """What to start a command through so that permissions bind it."""
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not bind root, and there is no setpriv to give that up")
    return BOUND


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all room of a disk but `leave` bytes."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free)
        file.truncate(max(1, free - leave))
    return filler


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk(way: Way, mount: Callable[[str], Path], stage: str) -> None:
    workspace = mount("size=48m") / "workspace"
    way.lay(workspace, stage)
    leaves = (0, way.made_by(stage) // 2)  # not even for the lock's note; for half of the outputs
    for leave in (260_000,) if stage == "train" else leaves:  # for the weights, not for the moments
        filler = fill(workspace.parent, leave)
        if stage == "download":  # with a length, it would be refused before it begins
            way.server.always(ARCHIVE, Behaviour(has_length=False))
        done = start(stage, *way.arguments[stage], workspace=workspace, code=1)
        filler.unlink()
        refused(done, workspace, stage, "Free some room")
        assert not list(workspace.glob("models/one/checkpoint-*"))
    way.server.always(ARCHIVE, GOOD)
    rerun(way, stage, workspace)
    whole(way, workspace, stage)


def test_too_little_room_for_a_download_is_said_before_it_begins(way: Way, mount: Callable[[str], Path]) -> None:
    disk = mount("size=2m")
    fill(disk, 100_000)
    done = start("download", *way.arguments["download"], workspace=disk / "workspace", code=1)
    refused(done, disk / "workspace", "download", "Free some room")
    assert "are free" in done.stderr
    assert not list(disk.rglob("*.zip*"))


@pytest.mark.parametrize(
    ("stage", "limit"), [("download", 100_000), ("clean", 50_000), ("tokenizer", 8_000), ("pack", 50_000)]
)
def test_a_limit_to_the_size_of_files(way: Way, tmp_path: Path, stage: str, limit: int) -> None:
    workspace = tmp_path / "workspace"
    way.lay(workspace, stage)
    done = start(stage, *way.arguments[stage], workspace=workspace, code=1, limit=limit)
    refused(done, workspace, stage, "limit")
    rerun(way, stage, workspace)
    whole(way, workspace, stage)


def test_a_read_only_disk(way: Way, mount: Callable[[str], Path], tmp_path: Path) -> None:
    workspace = mount("size=48m") / "workspace"
    for folder in STAGES.values():
        shutil.copytree(way.workspace / folder, workspace / folder)
    mount("ro")
    for stage in STAGES:
        done = start(stage, *way.arguments[stage], workspace=workspace, code=1)
        assert str(workspace) in done.stderr
        assert "The file system is read-only: give a --workspace" in done.stderr
    for reads in ("status", "verify", "datasets"):
        corpus(reads, "--workspace", workspace, folder=tmp_path)
    corpus("trace", "baike2018qa:0", "--workspace", workspace, folder=tmp_path)
    mount("rw")
    assert outputs(workspace) == way.expected


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=pytest.mark.slow if name == "train" else ()) for name in STAGES]
)
def test_no_permission_to_write(way: Way, bound: tuple[str, ...], tmp_path: Path, stage: str) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    way.lay(workspace, stage)
    closed = workspace / "tokenizer" if stage == "tokenizer" else (workspace / STAGES[stage]).parent
    closed.mkdir(exist_ok=True)
    closed.chmod(0o555)
    done = start(stage, *way.arguments[stage], workspace=workspace, code=1, prefix=bound)
    refused(done, workspace, stage, "You may not write there")
    closed.chmod(0o755)
    start(stage, *way.arguments[stage], workspace=workspace, code=0, prefix=bound)
    whole(way, workspace, stage)


def test_no_permission_to_the_workspace(way: Way, bound: tuple[str, ...], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for workspace in (closed / "workspace", closed):
        done = start("download", *way.arguments["download"], workspace=workspace, code=1, prefix=bound)
        assert str(workspace) in done.stderr
        assert "give a --workspace of your own" in done.stderr
    assert not list(closed.iterdir())


def test_no_permission_to_read(bound: tuple[str, ...], tmp_path: Path) -> None:
    workspace, source = tmp_path / "workspace", tmp_path / "fetched"
    source.mkdir()
    given = source / TRAIN
    given.write_bytes(lines([baike(n) for n in range(30)]))
    ingest = ("ingest", "--source", str(source))
    given.chmod(0)
    done = start(*ingest, workspace=workspace, code=1, prefix=bound)
    assert str(given) in done.stderr
    given.chmod(0o644)
    start(*ingest, workspace=workspace, code=0, prefix=bound)
    part = workspace / "documents/baike2018qa/part-00000.parquet"
    part.chmod(0)
    part.touch()  # so that it is read again
    done = start("pack", workspace=workspace, code=1, prefix=bound)
    assert str(part) in done.stderr


def test_a_name_too_long(way: Way, mount: Callable[[str], Path], tmp_path: Path) -> None:
    source = tmp_path / "fetched"
    long = source / "AA" / f"wiki_{'0' * 245}"
    long.parent.mkdir(parents=True)
    long.write_bytes(lines([{"id": "1", "url": "", "title": "算盘", "text": "算盘是计算的工具，用起来很快。" * 9}]))
    disk = mount("size=8m")  # another disk than that of the source: the file must be copied, which takes a longer name
    ingest = ("ingest", "--dataset", "wiki2019zh", "--source", str(source))
    done = start(*ingest, workspace=disk / "workspace", code=1)
    assert "AA/wiki_000" in done.stderr
    assert "the name is too long" in done.stderr
    done = start(*ingest, workspace=disk / ("x" * 256), code=1)
    assert f"{'x' * 256}: File name too long" in done.stderr
    assert "Give a shorter --workspace path" in done.stderr
    assert not list(disk.rglob("ledger.json"))
    long.rename(long.with_name("wiki_00"))
    start(*ingest, workspace=disk / "workspace", code=0)


def test_a_run_with_too_long_a_name(way: Way) -> None:
    done = start("train", *way.arguments["train"], "--run", "x" * 256, workspace=way.workspace, code=2)
    assert "--run must be at most 200 bytes long" in done.stderr


# --- who may read what ---------------------------------------------------------------------------------------------


def test_unfinished_files_are_for_their_owner_alone(way: Way, tmp_path: Path) -> None:
    """What is being written is closed to others; what is finished has the mode that the umask gives.

    A file is unfinished for milliseconds, so on a busy machine it takes several runs to see one.
    """
    way.server.always(ARCHIVE, Behaviour(piece_bytes=50_000, pause_s=0.05))
    seen: dict[str, set[int]] = {".part": set(), ".tmp": set()}
    for attempt in range(5):
        _watch(way, tmp_path / str(attempt), seen)
        if all(0o600 in modes for modes in seen.values()):
            break
    way.server.always(ARCHIVE, GOOD)
    assert all(0o600 in modes and modes <= {0o600, FINISHED_MODE} for modes in seen.values())  # whole, it may be opened


def _watch(way: Way, workspace: Path, seen: dict[str, set[int]]) -> None:
    """Run the stages that write most, and add the modes of the unfinished files that are there meanwhile."""
    for stage in ("download", "clean", "pack"):
        if stage == "pack":
            shutil.copytree(way.workspace / "tokenizer", workspace / "tokenizer")
        process = forked.Forked([CORPUS, stage, *way.arguments[stage], "--workspace", workspace])
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):  # files and folders go while they are listed
                for path in workspace.rglob("*"):
                    for suffix in (".part", ".tmp"):
                        if path.name.endswith(suffix):
                            seen[suffix].add(path.stat().st_mode & 0o777)
            time.sleep(0.001)
        assert process.returncode == 0


def test_finished_files_have_the_mode_that_the_umask_gives(way: Way) -> None:
    mask = os.umask(0o022)
    os.umask(mask)
    modes = {
        path.relative_to(way.workspace).as_posix(): path.stat().st_mode & 0o777
        for folder in STAGES.values()
        for path in (way.workspace / folder).rglob("*")
        if path.is_file() and "checkpoint-" not in str(path)
    }
    assert len(modes) > 15
    assert {name: mode for name, mode in modes.items() if mode != 0o666 & ~mask} == {}


def test_a_checkpoint_is_written_where_others_cannot_look(workspace: Workspace) -> None:
    lay_all(workspace)
    process = train({"epochs": 1.0, "architecture": "tiny"}, workspace)  # takes longer to write
    saving = workspace.models / "one" / ".saving"
    modes = set()
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            modes.add(saving.stat().st_mode & 0o777)
        time.sleep(0.001)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert modes == {0o700}
