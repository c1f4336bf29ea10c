"""What tests share: a workspace, raw files laid into it, what is made once for all workers, and the real sample."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Ledger, fingerprint, write_ledger
from tests.support import forked, object_server
from tests.support.command import corpus
from tests.support.records import MIRROR, LayRaw, Shared
from tests.support.runs import narrowed

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; more threads would wait for each other
os.environ.pop("CORPUS_WORKSPACE", None)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as containers set it: each process would compile the package again
gc.disable()  # until the tests are collected, which is importing


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: a collection, and each training asks for one, need not look at them."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Start what forks commands, in the process that starts xdist's workers."""
    if not hasattr(config, "workerinput"):
        servers = contextlib.ExitStack()
        servers.enter_context(forked.serving())
        config.add_cleanup(servers.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that workers end together: tests/whole, then training, then the rest."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(tests).parts[0], reverse=True)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """A folder that is made once in a run, by the worker that needs it first; tests copy it before they write."""
    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def give(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / f"shared-{name}"
        with FileLock(f"{folder}.lock"):
            if not (root / f"{folder.name}.made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what another worker failed to make
                folder.mkdir()
                make(folder)
                (root / f"{folder.name}.made").touch()
        return folder

    return give


@pytest.fixture(scope="session")
def demo(shared: Shared) -> Workspace:
    """The built-in demo from its records to a model of two steps, and its questions as rows of turns; to be read."""

    def make(folder: Path) -> None:
        with narrowed():  # `make demo` trains the network of the preset
            corpus("demo", "--max-steps", 2, "--workspace", "demo", folder=folder)
        corpus("pack", "--form", "chat", "--workspace", "demo", folder=folder)

    return Workspace(shared("demo", make) / "demo")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The address of a real S3 server; for tests marked s3, in the group s3."""
    with object_server.serving(tmp_path_factory.mktemp("seaweed")) as address:
        yield address


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def mirror() -> Path:
    """The sample of real text in the official shapes; not part of the repository."""
    if not (MIRROR / "SHA256SUMS").is_file():
        pytest.skip("the shared sample of real text is not here")
    return MIRROR


@pytest.fixture
def lay_raw(workspace: Workspace) -> LayRaw:
    """Lay files into raw/DATASET as a finished download leaves them."""

    def lay(dataset: str, files: dict[str, bytes]) -> None:
        folder = workspace.raw(dataset)
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        outputs = [workspace.file_digest(folder / name, folder) for name in sorted(files)]
        identity = fingerprint("download", 1, {}, outputs)
        ledger = Ledger(
            stage="download", dataset=dataset, version=1, config={}, inputs=[], outputs=outputs, counts={},
            fingerprint=identity,
        )  # fmt: skip
        write_ledger(folder, ledger, {})

    return lay
