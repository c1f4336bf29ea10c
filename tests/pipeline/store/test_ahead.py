"""Files that are fetched ahead: what an earlier run left is not taken for what this one finds."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from corpus.pipeline.errors import StoreError
from corpus.pipeline.store import Cache, CachedFile, FetchAhead, FileNeed, Retry, open_store, wait_for


def test_a_failure_of_an_earlier_run_does_not_end_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(f"memory://{tmp_path.name}", retry=Retry(sleep=lambda _: None))
    file = CachedFile("one.arrow", 4, hashlib.sha256(b"rows").hexdigest())
    cache = Cache(tmp_path / "cache")
    view = cache.open_view({"ledger.json": b"{}"})
    path = view.root / file.name

    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        run = thread.run

        def run_late() -> None:
            time.sleep(0.1)
            run()

        vars(thread)["run"] = run_late
        start(thread)

    def ahead() -> FetchAhead:
        monkeypatch.setattr(threading.Thread, "start", start_late)
        try:
            return made()
        finally:
            monkeypatch.setattr(threading.Thread, "start", start)

    def made() -> FetchAhead:
        return FetchAhead(cache, view, store, needs=[FileNeed(0, 1, (file,))], files=[file], kept=0)

    for data in (b"rowz", b"rows", b"rowz", b"rows"):
        store.write(file.name, data)
        path.unlink(missing_ok=True)
        for kept in cache.folder.glob(f"{file.sha256}*"):
            kept.unlink()
        fetching = ahead()
        try:
            if data == b"rows":
                wait_for(path, view.root)
                assert path.read_bytes() == data
            else:
                with pytest.raises(StoreError, match="it has other bytes than expected"):
                    wait_for(path, view.root)
        finally:
            fetching.close()
