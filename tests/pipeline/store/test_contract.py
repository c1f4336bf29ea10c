"""What every store promises, on a disk, in memory, and on a real S3 server, with and without faults before it."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpus.pipeline.errors import DiskError, ObjectMissingError, StoreError
from corpus.pipeline.store import Retry, Store, open_store
from tests.support import object_server
from tests.support.faults import FaultyProxy

QUICK = Retry(sleep=lambda _: None)
DATA = random.Random(1).randbytes(70_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
SEEDS = range(2)
ON_S3 = [pytest.mark.s3, pytest.mark.xdist_group("s3")]
PLACES = ["disk", "memory", *(pytest.param(name, marks=ON_S3) for name in ("s3", *map(str, SEEDS)))]


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store; a number is the seed of the faults."""
    if request.param == "disk":
        yield open_store(str(tmp_path / "objects"), retry=QUICK)
        return
    if request.param == "memory":
        yield open_store(f"memory://{tmp_path.name}", retry=QUICK)
        return
    address = request.getfixturevalue("s3_server")
    with FaultyProxy(address, seed=0 if request.param == "s3" else int(request.param)) as proxy:
        url = f"http://{address[0]}:{address[1]}" if request.param == "s3" else proxy.url
        for name, value in object_server.environment(url).items():
            monkeypatch.setenv(name, value)
        yield open_store(f"s3://{object_server.BUCKET}/{tmp_path.name}-{request.param}", retry=QUICK)
        assert request.param != "s3" or not proxy.faults


def test_an_object_is_read_as_it_was_written(store: Store, tmp_path: Path) -> None:
    for key, data in (("a/语料.bin", DATA), ("a-b", b""), ("a/b/c d+%", b"x")):
        store.write(key, data)
        assert store.read(key) == data
        assert store.read(key, size=len(data), sha256=hashlib.sha256(data).hexdigest()) == data
        assert store.info(key).size == len(data)
        store.local_copy(key, tmp_path / "copy", size=len(data), sha256=hashlib.sha256(data).hexdigest())
        assert (tmp_path / "copy").read_bytes() == data
    assert store.keys() == sorted(["a-b", "a/b/c d+%", "a/语料.bin"])
    assert store.keys("a") == ["a/b/c d+%", "a/语料.bin"]
    assert store.keys("a/b/c") == []


def test_ranges(store: Store) -> None:
    store.write("rows", DATA)
    spans = [(0, 1), (69_999, 70_000), (5, 5), (10, 60_000)]
    assert store.read_ranges("rows", spans) == [DATA[start:end] for start, end in spans]
    assert store.read_ranges("rows", [(3, 3)]) == [b""]
    with pytest.raises(StoreError, match=r"70,000 bytes, not 70,001"):
        store.read_ranges("rows", [(60_000, 70_001)])


def test_a_disk_that_refuses_a_copy_is_no_fault_of_the_store(store: Store, tmp_path: Path) -> None:
    store.write("one", DATA)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match=f"^{tmp_path}/file") as caught:
        store.local_copy("one", tmp_path / "file" / "copy")
    assert "lies where a folder is needed" in caught.value.hint


def test_a_write_replaces_and_changes_the_tag(store: Store) -> None:
    store.write("one", b"first")
    before = store.info("one")
    store.write("one", b"other")
    assert store.read("one") == b"other"
    assert store.info("one").tag != before.tag
    assert store.info("one") == store.info("one")


def test_what_is_not_there(store: Store, tmp_path: Path) -> None:
    store.write("folder/one", b"1")
    calls: list[Callable[[], object]] = [
        lambda: store.read("folder"), lambda: store.read("none", size=3), lambda: store.info("folder"),
        lambda: store.read_ranges("none", [(0, 1)]), lambda: store.local_copy("none", tmp_path / "copy"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ObjectMissingError, match="is not there"):
            call()
    assert store.keys("none") == []
    store.delete("none")
    store.delete("folder/one")
    store.delete("folder/one")
    assert store.keys() == []


def test_listings_are_fresh(store: Store) -> None:
    for number in range(3):
        assert store.keys("list") == [f"list/{before}" for before in range(number)]
        store.write(f"list/{number}", b"1")
    store.delete("list/1")
    assert store.keys("list") == ["list/0", "list/2"]


def test_a_listing_has_sizes_and_tags(store: Store) -> None:
    store.write("list/one", DATA)
    store.write("list/b/two", b"")
    assert store.infos("list") == {key: store.info(key) for key in ("list/b/two", "list/one")}


@pytest.mark.parametrize("size", [100, pytest.param(70 << 20, marks=pytest.mark.slow)])
def test_a_file_becomes_an_object(store: Store, tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "file", random.Random(2).randbytes(size)
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    store.upload("folder/file", path, sha256)
    store.local_copy("folder/file", tmp_path / "copy", size=size, sha256=sha256)
    with pytest.raises(StoreError, match="file was changed: SHA-256"):
        store.upload("folder/other", path, "0" * 64)
    assert store.keys() == ["folder/file"]


def test_other_bytes_are_refused(store: Store, tmp_path: Path) -> None:
    store.write("one", DATA)
    for size, sha256 in ((69_999, None), (70_001, None), (70_000, "0" * 64)):
        with pytest.raises(StoreError, match=r"bytes.* not ") as caught:
            store.read("one", size=size, sha256=sha256)
        assert "write it there again" in caught.value.hint
        with pytest.raises(StoreError, match=r"bytes.* not "):
            store.local_copy("one", tmp_path / "copy", size=size, sha256=sha256)
    assert list(tmp_path.glob("*copy*")) == []


def test_of_several_writers_one_creates(store: Store) -> None:
    assert store.can_create
    together = threading.Barrier(4)

    def claim(writer: int) -> list[bool]:
        won = []
        for number in range(5):
            together.wait()
            won.append(store.write_if_absent(f"claims/{number}", f"writer {writer}".encode()))
        return won

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(claim, range(4)))
    for number in range(5):
        (winner,) = [writer for writer in range(4) if won[writer][number]]
        assert store.read(f"claims/{number}") == f"writer {winner}".encode()
    assert not store.write_if_absent("claims/0", b"late")
    store.delete("claims/0")
    assert store.write_if_absent("claims/0", b"late")


@pytest.mark.s3
@pytest.mark.xdist_group("s3")
def test_refused_credentials_and_an_absent_bucket_are_named(
    s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_server.environment(f"http://{s3_server[0]}:{s3_server[1]}").items():
        monkeypatch.setenv(name, value)
    calls: list[Callable[[Store], object]] = [
        lambda store: store.read("one", size=1), lambda store: store.write("one", b"1"),
        lambda store: store.write_if_absent("one", b"1"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match=r"^s3://none/x/one: there is no such bucket$"):
            call(open_store("s3://none/x", retry=QUICK))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    for call in calls:
        with pytest.raises(StoreError, match=r"^s3://rows/x/one: access is refused") as caught:
            call(open_store("s3://rows/x", retry=QUICK))
        assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
        assert "not-the-secret" not in f"{caught.value.message}{caught.value.hint}"
