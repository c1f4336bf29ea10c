"""What `corpus status` says of every state."""

from __future__ import annotations

import json
import shutil
import threading

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.inspect import verify
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.files import atomic
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.receipts import PieceWriter
from tests.support.command import corpus


def states(workspace: Workspace) -> dict[str, tuple[str, str]]:
    return {f"{row.area}/{row.name}": (row.state, row.why) for row in survey(workspace)}


def test_every_state(workspace: Workspace) -> None:
    assert states(workspace) == {}
    with workspace.writing("test"):
        download.run(download.DownloadConfig(dataset="demo"), workspace)
    missing = dict.fromkeys(("documents/demo", "dedup/", "tokenizer/", "packed/demo"), ("missing", ""))
    assert states(workspace) == {"raw/demo": ("finished", "")} | missing
    ingest.run(ingest.IngestConfig(dataset="demo", workers=1), workspace)
    dedup.run(dedup.DedupConfig(workers=1), workspace)
    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=500), workspace)
    pack.run(pack.PackConfig(dataset="demo", workers=1, seq_length=64), workspace)
    assert "chat/demo" not in states(workspace)  # nobody needs it
    pack.run(pack.PackConfig(dataset="demo", form="chat", workers=1, seq_length=64), workspace)
    assert states(workspace)["chat/demo"] == ("finished", "")
    assert {state for state, _ in states(workspace).values()} == {"finished"}
    (workspace.raw("demo") / "wiki.json").touch()
    assert {state for state, _ in states(workspace).values()} == {"finished"}

    tokenizer.run(tokenizer.TokenizerConfig(vocab_size=520), workspace)
    assert states(workspace)["packed/demo"] == ("stale", "input tokenizer/tokenizer.json has changed")
    assert states(workspace)["chat/demo"] == ("stale", "input tokenizer/tokenizer.json has changed")
    (workspace.packed("demo", "chat") / "ledger.json").unlink()
    assert states(workspace)["chat/demo"] == ("partial", "8 files are there")

    path = workspace.raw("demo") / "wiki.json"
    data = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(data.replace(b"a", b"b", 1))
    assert states(workspace)["documents/demo"] == ("stale", "input raw/demo/wiki.json has changed")

    (workspace.documents("demo") / "ledger.json").unlink()
    state, why = states(workspace)["documents/demo"]
    assert state == "partial"
    assert "files are there" in why
    (workspace.tokenizer / "ledger.json").write_text("{")
    state, why = states(workspace)["tokenizer/"]
    assert (state, "is not a ledger" in why, "corpus tokenizer" in why) == ("unreadable", True, True)
    shutil.rmtree(workspace.documents("demo"))
    assert states(workspace)["documents/demo"][0] == "missing"
    shown = corpus("status", folder=workspace.root.parent).stdout
    assert "packed/demo: stale: input documents/demo/ledger.json is gone" in shown
    rows = json.loads(corpus("status", "--json", folder=workspace.root.parent).stdout)
    assert {"area", "name", "state", "why", "files", "bytes", "counts"} == set(rows[0])


def test_what_a_finished_stage_does_not_show_by_its_size(workspace: Workspace) -> None:
    with workspace.writing("test"):
        download.run(download.DownloadConfig(dataset="demo"), workspace)
        ingest.run(ingest.IngestConfig(dataset="demo", workers=1), workspace)
    shard = workspace.documents("demo") / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    state, why = states(Workspace(workspace.root))["documents/demo"]
    assert (state, why) == ("finished", f"{shard.name} has changed or moved since it was written: run `corpus verify`")
    assert f"{shard.name} has changed" in corpus("status", folder=workspace.root.parent).stdout


def test_a_copied_workspace_is_quiet_once_it_was_verified(workspace: Workspace) -> None:
    with workspace.writing("test"):
        download.run(download.DownloadConfig(dataset="demo"), workspace)
    copy = Workspace(workspace.root.with_name("copy"))
    shutil.copytree(workspace.root, copy.root, copy_function=shutil.copyfile)
    assert "4 more files have changed or moved" in states(copy)["raw/demo"][1]
    verify.run(Workspace(copy.root))
    assert states(Workspace(copy.root))["raw/demo"] == ("finished", "")


def test_documents_whose_archives_were_deleted_stay_finished(workspace: Workspace) -> None:
    with workspace.writing("test"):
        download.run(download.DownloadConfig(dataset="demo"), workspace)
        ingest.run(ingest.IngestConfig(dataset="demo", workers=1), workspace)
    (workspace.raw("demo") / "wiki.json").unlink()
    assert states(workspace)["documents/demo"] == ("stale", "input raw/demo/wiki.json is gone")
    shutil.rmtree(workspace.raw("demo"))
    state, why = states(workspace)["documents/demo"]
    assert state == "finished"
    assert "raw/demo was deleted" in why
    assert "`corpus download --dataset demo`" in why


def test_receipts_are_no_files_of_a_stage(workspace: Workspace) -> None:
    files = PieceWriter(workspace.documents("demo"), "work", "00000")
    for name in ("part-00000.parquet", "rejected/part-00000.parquet"):
        with files.output(name) as out:
            out.write(b"rows")
    files.finish({})
    assert states(workspace)["documents/demo"] == ("partial", "2 files are there")


def test_files_that_another_process_renames_meanwhile_are_no_error(workspace: Workspace) -> None:
    folder = workspace.packed("demo") / "train"
    folder.mkdir(parents=True)
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            with atomic(folder / "part-0.arrow") as file:
                file.write(b"rows")
            (folder / "part-0.arrow").unlink()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = {state for _ in range(150) for state, _ in states(workspace).values()}
    finally:
        done.set()
        writer.join()
    assert found <= {"partial", "missing"}


def test_a_run_without_a_checkpoint_holds_nothing_whole(workspace: Workspace) -> None:
    (workspace.models / "two").mkdir(parents=True)
    (workspace.models / "two" / "run.json").write_text("{}")
    workspace.tokenizer.mkdir()
    (workspace.tokenizer / ".sample.txt.7.tmp").write_text("")
    assert states(workspace)["models/two"] == ("partial", "begun; no checkpoint yet")
    assert states(workspace)["tokenizer/"] == ("partial", "begun; no file is whole yet")
