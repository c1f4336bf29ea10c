"""Retries of requests over HTTP, what is no URL of a store, and what a file system cannot do."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import LocalFileSystem

from corpus.pipeline.errors import ObjectMissingError, StoreError
from corpus.pipeline.store import Retry, Store, is_remote, open_store
from tests.support.faults import FaultyProxy
from tests.support.server import Behaviour, Server, cut, status

DATA = bytes(range(256)) * 200
SHA256 = hashlib.sha256(DATA).hexdigest()


def test_reads_survive_faults(tmp_path: Path) -> None:
    with Server({"/rows/one": DATA}) as server:
        upstream = ("127.0.0.1", int(server.url().rpartition(":")[2]))
        with FaultyProxy(upstream, seed=2) as proxy:
            store = open_store(f"{proxy.url}/rows", retry=Retry(sleep=lambda _: None))
            for number in range(2):
                assert store.read("one", size=len(DATA), sha256=SHA256) == DATA
                assert store.read("one") == DATA
                assert store.read_ranges("one", [(number, 9), (300, 40_000)]) == [DATA[number:9], DATA[300:40_000]]
                store.local_copy("one", tmp_path / "copy", sha256=SHA256)
                assert (tmp_path / "copy").read_bytes() == DATA
            assert {"503", "500", "cut", "late"} == set(proxy.faults)


def test_attempts_and_waits_have_a_limit() -> None:
    waits: list[float] = []
    retry = Retry(attempts=4, backoff_s=1.0, most_s=2.0, sleep=waits.append)
    with Server({"/one": DATA}) as server:
        server.script("/one", *[status(503)] * 3)
        assert open_store(server.url(), retry=retry).read("one", size=len(DATA)) == DATA
        for wait, most in zip(waits, (1.0, 2.0, 2.0), strict=True):
            assert most / 2 <= wait <= most
        server.always("/one", status(500))
        with pytest.raises(StoreError, match=r"status 500\); given up after 4 attempts") as caught:
            open_store(server.url(), retry=retry).read("one", size=len(DATA))
        assert "again later" in caught.value.hint
        assert len(server.requests("/one")) == 8


def test_a_body_cut_each_time_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    with Server({"/one": DATA}) as server:
        server.always("/one", cut(1000))
        with pytest.raises(StoreError, match="given up after 3 attempts"):
            open_store(server.url(), retry=Retry(attempts=3, sleep=lambda _: None)).local_copy("one", tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_hangs_is_given_up() -> None:
    with Server({"/one": DATA}) as server:
        server.always("/one", Behaviour(hang_s=2.0))
        retry = Retry(attempts=2, timeout_s=0.05, sleep=lambda _: None)
        with pytest.raises(StoreError, match="given up after 2 attempts"):
            open_store(server.url(), retry=retry).read("one", size=len(DATA))


def test_an_object_without_a_size_is_named() -> None:
    with Server({"/one": DATA}) as server:
        server.always("/one", Behaviour(has_length=False, has_ranges=False))
        with pytest.raises(StoreError, match="/one: the server does not say how large it is"):
            open_store(server.url()).read("one")


def test_final_answers_are_not_repeated() -> None:
    with Server({"/one": DATA}) as server:
        server.always("/one", status(403))
        with pytest.raises(StoreError, match="access is refused"):
            open_store(server.url()).read("one", size=len(DATA))
        with pytest.raises(ObjectMissingError):
            open_store(server.url()).read("two", size=1)
        assert [len(server.requests(path)) for path in ("/one", "/two")] == [1, 1]


@pytest.mark.parametrize("code", [400, 403, 500])
def test_a_status_is_named_without_secrets_of_the_url(code: int) -> None:
    with Server({}) as server:
        server.always("/rows?token=secret/one", status(code))
        store = open_store(server.url("/rows?token=secret"), retry=Retry(sleep=lambda _: None))
        with pytest.raises(StoreError, match=rf"/one: .*\(status {code}\)") as caught:
            store.read("one")
        assert not isinstance(caught.value, ObjectMissingError)
        assert "secret" not in str(caught.value)


def test_a_server_that_ignores_ranges_is_named_at_once() -> None:
    with Server({"/one": DATA}) as server:
        server.always("/one", Behaviour(has_ranges=False))
        with pytest.raises(StoreError, match="/one: the server ignores the Range header") as caught:
            open_store(server.url()).read_ranges("one", [(0, 9)])
        assert "nginx" in caught.value.hint
        assert len(server.requests("/one")) == 1


def test_a_file_system_without_whole_or_exclusive_writes_says_so(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"1")
    store = Store(ArrowFSWrapper(LocalFileSystem()), str(tmp_path), "arrow://there")
    assert store.read("there") == b"1"
    with pytest.raises(StoreError, match="takes no object whole"):
        store.write("one", b"1")
    assert not store.can_create
    with pytest.raises(StoreError, match="cannot refuse a write"):
        store.write_if_absent("one", b"1")


def test_keys_stay_below_the_prefix() -> None:
    for key in ("", "../other", "a//b", "/a", "a/", "a/./b", "a/..", "a\0b"):
        with pytest.raises(StoreError, match="no key"):
            open_store("memory://keys").write(key, b"1")


def test_urls() -> None:
    with pytest.raises(StoreError, match=r"^s3://bucket/a: the URL has a password$"):
        open_store("s3://key:secret@bucket/a")
    with pytest.raises(StoreError, match=r"^nowhere://a cannot be opened"):
        open_store("nowhere://a")
    assert open_store("file://localhost/a").shown == open_store("file:///a").shown == "/a"
    assert [is_remote(place) for place in ("s3://a", "file:///a", "LOCAL://a", "a/b")] == [True, False, False, False]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match="s3://bucket/a cannot be opened") as caught:
        open_store("s3://bucket/a")
    assert caught.value.hint == "Install it: pip install s3fs"


def test_a_killed_write_to_a_disk_leaves_the_former_object(tmp_path: Path) -> None:
    open_store(str(tmp_path)).write("one", b"former")
    writes = (
        "import os, sys\n"
        "from corpus.pipeline.store import open_store\n"
        "os.fsync = lambda _: os._exit(9)\n"  # after all bytes are written, before the rename
        "open_store(sys.argv[1]).write('one', b'x' * 100_000)\n"
    )
    command = [sys.executable, "-c", writes, str(tmp_path)]
    assert subprocess.run(command, check=False, env=dict(os.environ)).returncode == 9
    store = open_store(str(tmp_path))
    assert store.read("one") == b"former"
    assert store.keys() == ["one"]
