"""The cache of files by digest: checked, fetched once, bounded, and whole after a kill."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corpus.pipeline.errors import ObjectMissingError, StoreError
from corpus.pipeline.store import Cache, CachedFile, Retry, Store, View, open_cache, open_store
from tests.support.runs import Recorder
from tests.support.server import Behaviour, Server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in memory."""
    return open_store(f"memory://{tmp_path.name}", retry=Retry(sleep=lambda _: None))


def put(store: Store, name: str, data: bytes) -> CachedFile:
    store.write(name, data)
    return file_of(name, data)


def file_of(name: str, data: bytes) -> CachedFile:
    return CachedFile(name, len(data), hashlib.sha256(data).hexdigest())


def fetched(cache: Cache, store: Store, *files: CachedFile) -> tuple[View, str]:
    """A view of files, and what was said while they were fetched."""
    recorder = Recorder()
    view = cache.open_view({"ledger.json": repr(tuple(files)).encode()})
    cache.fetch(view, store, files, recorder)
    return view, " ".join(recorder.said)


def kept(cache: Cache) -> set[str]:
    """The digests of the files in the cache."""
    return {path.stem for path in cache.folder.iterdir() if len(path.stem) == 64}


def test_a_file_is_fetched_once_and_has_its_name_in_the_view(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    names = {"train/one.arrow": b"rows", "test/one.arrow": b"rows", "info.json": b"{}"}
    files = [put(store, name, data) for name, data in names.items()]
    view, said = fetched(cache, store, *files)
    assert "fetching 2 files, 6 B, from memory://" in said
    assert (view.root / "train/one.arrow").read_bytes() == (view.root / "test/one.arrow").read_bytes() == b"rows"
    assert (view.root / "ledger.json").read_bytes() == repr(tuple(files)).encode()
    for name in names:
        store.delete(name)
    again, said = fetched(Cache(tmp_path / "cache"), store, *files)
    assert (again.root, said) == (view.root, "")


def test_a_damaged_file_is_fetched_again(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    file = put(store, "one.arrow", b"rows")
    view, _ = fetched(cache, store, file)
    (view.root / "one.arrow").write_bytes(b"rowz")
    view, said = fetched(cache, store, file)
    assert "fetching 1 files" in said
    assert (view.root / "one.arrow").read_bytes() == b"rows"


def test_other_bytes_are_refused_and_finished_files_stay(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    good, late = put(store, "good.arrow", b"good"), file_of("late.arrow", b"late")
    with pytest.raises(ObjectMissingError, match=r"/late\.arrow is not there"):
        fetched(cache, store, good, late)
    store.write("late.arrow", b"lake")
    with pytest.raises(StoreError, match=r"/late\.arrow: it has other bytes"):
        fetched(cache, store, good, late)
    assert kept(cache) == {good.sha256}
    store.write("late.arrow", b"late")
    _, said = fetched(cache, store, good, late)
    assert "fetching 1 files, 4 B" in said


def test_what_was_used_least_recently_goes_and_what_is_open_stays(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", most_bytes=30)
    one, two, three, four = (put(store, f"{number}.arrow", bytes([number]) * 10) for number in range(4))
    for file in (one, two, three):
        fetched(cache, store, file)[0].close()
    view, said = fetched(cache, store, one)
    assert said == ""
    fetched(cache, store, four)[0].close()
    assert kept(cache) == {one.sha256, three.sha256, four.sha256}
    both, _ = fetched(cache, store, two, three)
    assert kept(cache) == {one.sha256, two.sha256, three.sha256}
    with pytest.raises(StoreError, match=r"so much open in .* that 10 B are lacking"):
        fetched(cache, store, four)
    for path in (view.root / one.name, both.root / two.name, both.root / three.name):
        assert len(path.read_bytes()) == 10
    with pytest.raises(StoreError, match="the rows have 40 bytes") as caught:
        fetched(cache, store, one, two, three, four)
    assert "--cache-bytes 40" in caught.value.hint


def test_a_file_of_two_views_stays_with_the_second(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", most_bytes=30)
    shared, old, new = (put(store, f"{number}.arrow", bytes([number]) * 10) for number in range(3))
    fetched(cache, store, shared, old)[0].close()
    fetched(cache, store, shared, new)[0].close()
    fetched(cache, store, put(store, "last.arrow", b"x" * 10))[0].close()
    assert {shared.sha256, new.sha256} < kept(cache)
    assert old.sha256 not in kept(cache)


def test_one_of_several_fetches(tmp_path: Path) -> None:
    data = bytes(range(256)) * 100
    with Server({"/one.arrow": data}) as server, ThreadPoolExecutor(4) as pool:
        server.always("/one.arrow", Behaviour(hang_s=0.02))

        def fetch(number: int) -> bytes:
            cache = Cache(tmp_path / "cache")
            view, _ = fetched(cache, open_store(server.url()), file_of("one.arrow", data))
            return (view.root / "one.arrow").read_bytes()

        assert list(pool.map(fetch, range(4))) == [data] * 4
        assert len(server.requests("/one.arrow")) == 1


@pytest.mark.parametrize("strike", [signal.SIGINT, signal.SIGKILL])
def test_a_struck_fetch_leaves_whole_files_and_is_resumed(strike: signal.Signals, tmp_path: Path) -> None:
    quick, slow = b"quick" * 10, bytes(200_000)
    fetches = (
        "import sys; from pathlib import Path; from corpus.pipeline.store import *\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "files = [CachedFile(*each.split()[:1], int(each.split()[1]), each.split()[2]) for each in sys.argv[3:]]\n"
        "cache.fetch(cache.open_view({'ledger.json': b'1'}), open_store(sys.argv[2]), files)\n"
    )
    with Server({"/quick.arrow": quick, "/slow.arrow": slow}) as server:
        server.script("/slow.arrow", Behaviour(piece_bytes=10_000, pause_s=0.2))
        files = [file_of("quick.arrow", quick), file_of("slow.arrow", slow)]
        words = [f"{file.name} {file.size} {file.sha256}" for file in files]
        command = [sys.executable, "-c", fetches, str(tmp_path / "cache"), server.url(), *words]
        process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL)
        cache, until = Cache(tmp_path / "cache"), time.monotonic() + 60
        while not (cache.folder.is_dir() and kept(cache)) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(strike)
        assert process.wait(60) != 0
        assert kept(cache) - {files[1].sha256} == {files[0].sha256}  # an interrupted process ends its blocks
        left = "" if files[1].sha256 in kept(cache) else f"fetching 1 files, 200 kB, from {server.url()}"
        view, said = fetched(cache, open_store(server.url()), *files)
        assert said == left
        assert (view.root / "slow.arrow").read_bytes() == slow
    assert list(cache.folder.glob(".*.tmp")) == []


def test_names_that_lead_elsewhere_are_refused(store: Store, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    with pytest.raises(StoreError, match="no key"):
        fetched(cache, store, CachedFile("../../one", 1, "0" * 64))
    with pytest.raises(StoreError, match="no SHA-256"):
        fetched(cache, store, CachedFile("one", 1, "../../one"))
    with pytest.raises(StoreError, match="no key"):
        cache.open_view({"../one": b"1"})


def test_the_folder_is_where_caches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_cache().folder == tmp_path / "corpus"
    assert open_cache(tmp_path / "own").folder == tmp_path / "own"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_cache().folder == tmp_path / "home/.cache/corpus"
