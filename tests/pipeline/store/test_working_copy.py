"""A workspace in a storage: the bytes of a folder, brought once, and whole after a kill at any request."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from corpus.pipeline.download import stage as download
from corpus.pipeline.errors import BusyError, DamageError, StoreError
from corpus.pipeline.inspect import status, verify
from corpus.pipeline.storage.selection import documents_of
from corpus.pipeline.store import Store, Timing, on_node, open_store, open_workspace
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import read_ledger
from corpus.pipeline.workspace.remote import remote_of
from tests.support import job
from tests.support.outputs import outputs
from tests.support.packed import lay_tokenizer
from tests.support.records import Shared
from tests.support.remote import QUICK, Killed, Requests, differing, expected, forget, lay_source, objects, walk


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """The requests to storages in memory."""
    return Requests(monkeypatch)


@pytest.fixture(scope="session")
def local(shared: Shared) -> Path:
    """A source, and in `workspace` what a run in a folder makes of it."""

    def make(folder: Path) -> None:
        expected(folder / "workspace", lay_source(folder / "source"))

    return shared("remote-local", make)


@pytest.fixture
def wanted(local: Path) -> dict[str, bytes]:
    """The files that every run ends with."""
    return outputs(local / "workspace")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """An empty place in memory."""
    place = f"memory://{tmp_path.parent.name}-{tmp_path.name}"
    yield place
    with contextlib.suppress(FileNotFoundError):
        MemoryFileSystem().rm(place, recursive=True)


@pytest.fixture
def store(url: str) -> Store:
    """The storage there."""
    return open_store(url, retry=QUICK)


def opened(url: str, cache: Path) -> Workspace:
    return open_workspace(url, cache, retry=QUICK, timing=Timing(wait_s=0.1))


def test_the_bytes_of_a_folder_and_a_second_command_brings_and_sends_nothing(
    url: str, tmp_path: Path, local: Path, wanted: dict[str, bytes], requests: Requests
) -> None:
    walk(opened(url, tmp_path / "one"), local / "source")
    assert not differing(objects(url), wanted)
    requests.clear()
    walk(opened(url, tmp_path / "one"), local / "source")
    claims = requests.count("pipe_file", ".claims")
    assert requests.count("pipe_file") == claims == 2
    assert requests.count("cat_file") == 2 * claims  # each looks at the claims twice, before and after its own
    assert not open_store(url).keys(".claims")


def test_another_machine_brings_what_a_stage_reads_and_no_more(
    url: str, tmp_path: Path, local: Path, wanted: dict[str, bytes], requests: Requests
) -> None:
    walk(opened(url, tmp_path / "one"), local / "source")
    requests.clear()
    walk(opened(url, tmp_path / "two"), local / "source")  # all is finished
    for part in ("/documents/baike2018qa/part", "/packed/baike2018qa/train", "baike2018qa.zip"):
        assert not requests.count("cat_file", part)
    requests.clear()
    walk(opened(url, tmp_path / "three"), local / "source", seq_length=32)
    assert requests.count("cat_file", "/documents/baike2018qa/part")
    assert not requests.count("cat_file", "baike2018qa.zip")
    assert not requests.count("cat_file", "rejected/")
    walk(opened(url, tmp_path / "one"), local / "source")  # whose copy of the rows is of the first length
    assert not differing(objects(url), wanted)


def test_a_ledger_goes_before_an_output_changes_and_comes_after_all(
    url: str, tmp_path: Path, local: Path, requests: Requests
) -> None:
    walk(opened(url, tmp_path / "one"), local / "source")
    walk(opened(url, tmp_path / "one"), local / "source", seq_length=32)
    own = [(name, path.partition("/packed/baike2018qa/")[2]) for name, path in requests.made if "/packed/" in path]
    changes = [(name, path) for name, path in own if name != "cat_file"]
    (first, gone, last) = [number for number, (_, path) in enumerate(changes) if path == "ledger.json"]
    assert [changes[number][0] for number in (first, gone, last)] == ["pipe_file", "rm_file", "pipe_file"]
    arrows = [number for number, (name, path) in enumerate(changes) if name == "pipe_file" and path.endswith(".arrow")]
    assert all(number < first or gone < number < last for number in arrows)
    for number, (name, path) in enumerate(changes):
        if name == "pipe_file" and path.startswith("receipts/"):
            split, _, part = path.rpartition("/")[2].removesuffix(".json").partition("-")
            assert ("pipe_file", f"{split}/data-{part}.arrow") in changes[:number]


def kill_points(changes: int, seed: int, count: int) -> list[int]:
    return sorted(random.Random(seed).sample(range(changes), min(count, changes)))


@pytest.mark.parametrize("seed", [pytest.param(n, marks=pytest.mark.slow if n else ()) for n in range(4)])
def test_killed_at_any_change_another_machine_ends_with_the_same_bytes(
    seed: int, url: str, tmp_path: Path, local: Path, wanted: dict[str, bytes], requests: Requests
) -> None:
    walk(opened(url, tmp_path / "one"), local / "source")
    for point in kill_points(requests.changes, seed, 15 if seed else 3):
        place, chance = f"{url}/{point}", random.Random(point)
        requests.clear()
        requests.dies_at = point
        with pytest.raises(Killed):
            walk(opened(place, tmp_path / str(point)), local / "source")
        requests.clear()
        store = open_store(place, retry=QUICK)
        for key in store.keys(".claims"):
            store.delete(key)  # it is that of this very process
        for key in store.keys(""):
            if key.endswith("/ledger.json"):
                check_finished(store, key)
        if chance.random() < 0.5:
            forget(tmp_path / str(point))
        walk(opened(place, tmp_path / str(point)), local / "source")
        assert not differing(objects(place), wanted), point


def check_finished(store: Store, key: str) -> None:
    """What a ledger in the storage names is there, whole, at every moment."""
    folder = key.removesuffix("/ledger.json")
    for output in json.loads(store.read(key))["outputs"]:
        store.read(f"{folder}/{output['path']}", size=output["bytes"], sha256=output["sha256"])


def test_what_is_damaged_or_old_here_is_brought_again_and_never_sent(
    url: str, tmp_path: Path, local: Path, wanted: dict[str, bytes], requests: Requests
) -> None:
    one = opened(url, tmp_path / "one")
    walk(one, local / "source")
    documents = one.documents("baike2018qa")
    (documents / "part-00000.parquet").write_bytes(b"damaged")
    (documents / "part-00001.parquet").unlink()
    (documents / "part-00099.parquet").write_bytes(b"of another run")
    (documents / "ledger.json").write_bytes(b"{}")
    requests.clear()
    one = opened(url, tmp_path / "one")
    with one.writing("pack"):
        documents_of(one, "baike2018qa")
        assert read_ledger(documents)
        assert not (documents / "part-00099.parquet").exists()
    walk(one, local / "source")
    assert requests.count("cat_file", "documents/baike2018qa/part") == 2
    assert not requests.count("pipe_file", "documents/")
    assert not differing(objects(url), wanted)


@pytest.mark.parametrize("what", ["gone", "cut"])
def test_an_object_that_is_gone_is_made_again(
    what: str, url: str, store: Store, tmp_path: Path, local: Path, wanted: dict[str, bytes]
) -> None:
    walk(opened(url, tmp_path / "one"), local / "source")
    key = "documents/baike2018qa/part-00001.parquet"
    store.delete(key)
    if what == "cut":
        store.write(key, wanted[key][:-1])
    two = opened(url, tmp_path / "two")
    remote = remote_of(two.root)
    assert remote is not None
    remote.refresh()
    stale = next(row for row in status.survey(two) if row.area == "documents")
    assert (stale.state, stale.why.partition(" ")[0]) == ("stale", "output")
    with pytest.raises(StoreError, match=r"part-00001\.parquet") as caught:
        documents_of(two, "baike2018qa")
    assert "run `corpus ingest --dataset baike2018qa` again" in caught.value.hint
    walk(two, local / "source")
    assert not differing(objects(url), wanted)


def test_status_and_verify_on_another_machine(url: str, store: Store, tmp_path: Path, local: Path) -> None:
    walk(opened(url, tmp_path / "one"), local / "source")
    two = opened(url, tmp_path / "two")
    remote = remote_of(two.root)
    assert remote is not None
    remote.refresh()
    assert {row.state for row in status.survey(two) if row.area != "quality"} <= {"finished", "missing"}
    assert not list(two.documents("baike2018qa").glob("part-*"))
    assert verify.run(two).stages == 5
    key = "documents/baike2018qa/part-00000.parquet"
    data = bytearray(store.read(key))
    data[100] ^= 1
    store.write(key, bytes(data))
    with pytest.raises((StoreError, DamageError), match=r"part-00000\.parquet has other bytes"):
        verify.run(two)


def test_two_commands_do_not_write_at_once(url: str, tmp_path: Path) -> None:
    one, two = opened(url, tmp_path / "one"), opened(url, tmp_path / "two")
    with one.writing("ingest"), pytest.raises(BusyError, match="`corpus ingest`, process"), two.writing("pack"):
        pass
    with two.writing("pack"):
        pass


def test_small_files_follow_the_storage(url: str, store: Store, tmp_path: Path) -> None:
    one, two = opened(url, tmp_path / "one"), opened(url, tmp_path / "two")
    with one.writing("pack"):
        (one.root / "exclude.txt").write_text("a\n")
        (one.decontaminate / "evals").mkdir(parents=True)
        (one.decontaminate / "evals" / "exam.jsonl").write_text("{}\n")
    with two.writing("pack"):
        assert (two.root / "exclude.txt").read_text() == "a\n"
        (two.root / "exclude.txt").write_text("a\nb\n")
        (two.decontaminate / "evals" / "exam.jsonl").unlink()
    assert store.read("exclude.txt") == b"a\nb\n"
    assert store.keys("decontaminate") == []
    with one.writing("pack"):
        assert (one.root / "exclude.txt").read_text() == "a\nb\n"
        assert not list((one.decontaminate / "evals").glob("*"))


def test_jobs_of_two_machines_share_a_stage(url: str, tmp_path: Path, local: Path, requests: Requests) -> None:
    def at(machine: str) -> Workspace:
        return opened(url, tmp_path / machine)

    for workspace in (alone := Workspace(tmp_path / "alone"), at("one")):
        with workspace.writing("download"):
            download.run(download.DownloadConfig(dataset="baike2018qa", source=str(local / "source")), workspace)
            lay_tokenizer(workspace)
    for stage in ("ingest", "pack"):
        job.work(alone, stage, "all")
        job.work(at("one"), stage, "1/3")
        job.work(at("two"), stage, "2/3")
        requests.clear()
        job.work(at("two"), stage, "2/3")  # which finds its receipts
        assert not requests.count("pipe_file", "part-") + requests.count("pipe_file", "data-")
        area = {"ingest": "documents", "pack": "packed"}[stage]
        seen = next(row for row in status.survey(at("two")) if row.area == area)
        assert (seen.state, "pieces are there" in seen.why) == ("partial", True)
        job.work(at("three"), stage, "all")  # makes the third share, and finishes
    assert not differing(objects(url), outputs(alone.root))


def test_a_node_brings_the_inputs_of_its_pieces(url: str, tmp_path: Path, local: Path, requests: Requests) -> None:
    one = opened(url, tmp_path / "one")
    walk(one, local / "source")
    inputs = read_ledger(one.packed("baike2018qa")).inputs  # type: ignore[union-attr]  # it is finished
    requests.clear()
    node = on_node(url, tmp_path / "node", inputs)
    for name in (
        "documents/baike2018qa/part-00000.parquet",
        "tokenizer/tokenizer.json",
        "dedup/lists/baike2018qa.json",
    ):
        assert (node.root / name).read_bytes() == (one.root / name).read_bytes()
    assert not (node.documents("baike2018qa") / "rejected").exists()
    made = requests.count("cat_file")
    on_node(url, tmp_path / "node", inputs)
    assert requests.count("cat_file") == made
