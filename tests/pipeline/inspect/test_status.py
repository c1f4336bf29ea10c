"""What `corpus status` says of every state."""

from __future__ import annotations

import json
import shutil

from corpus.pipeline.dedup import stage as dedup
from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.download import stage as download
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.pack import stage as pack
from corpus.pipeline.tokenizer import stage as tokenizer
from corpus.pipeline.workspace.layout import Workspace
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
    assert states(workspace)["chat/demo"] == ("partial", "8 files are whole")

    path = workspace.raw("demo") / "wiki.json"
    data = path.read_bytes()
    path.unlink()  # it may be a hard link
    path.write_bytes(data.replace(b"a", b"b", 1))
    assert states(workspace)["documents/demo"] == ("stale", "input raw/demo/wiki.json has changed")

    (workspace.documents("demo") / "ledger.json").unlink()
    state, why = states(workspace)["documents/demo"]
    assert state == "partial"
    assert "files are whole" in why
    (workspace.tokenizer / "ledger.json").write_text("{")
    state, why = states(workspace)["tokenizer/"]
    assert (state, "cannot be read" in why) == ("stale", True)
    shutil.rmtree(workspace.documents("demo"))
    assert states(workspace)["documents/demo"][0] == "missing"
    shown = corpus("status", folder=workspace.root.parent).stdout
    assert "packed/demo: stale: input documents/demo/ledger.json is gone" in shown
    rows = json.loads(corpus("status", "--json", folder=workspace.root.parent).stdout)
    assert {"area", "name", "state", "why", "files", "bytes", "counts"} == set(rows[0])
