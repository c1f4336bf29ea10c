"""Pushes: a dry run sends nothing, an upload sends the folder as its ledger names it, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from corpus.pipeline import export, hub
from corpus.pipeline.errors import DamageError, WorkspaceError
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import LEDGER, Ledger, read_ledger, write_ledger
from tests.support import exported
from tests.support.command import corpus
from tests.support.hub import TOKEN, Hub
from tests.support.records import Shared


@pytest.fixture(scope="session")
def laid(shared: Shared) -> Workspace:
    """The workspace to push from; to be read."""
    return Workspace(shared("exported", exported.lay) / "workspace")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub, and a client that may reach it, without xet, its faster protocol, which has servers of its own."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def folder(laid: Workspace, tmp_path: Path) -> Path:
    """An export."""
    make(laid, tmp_path / "out")
    return tmp_path / "out"


def make(workspace: Workspace, place: Path, unit: int = 4000) -> None:
    config = export.ExportConfig("parquet", place, datasets=("baike2018qa",), workers=1, unit_characters=unit)
    export.run(config, workspace)


def push(workspace: Workspace, *arguments: object, code: int = 0) -> tuple[str, str]:
    words = ("push", "--repo", "me/data", *arguments, "--workspace", workspace.root)
    done = corpus(*words, folder=workspace.root, code=code)
    return done.stdout, done.stderr


def test_nothing_is_sent_unless_asked(laid: Workspace, folder: Path, server: Hub) -> None:
    shown, _ = push(laid, "--what", "documents", "--export", folder)
    assert "me/data, a dataset repository (private if it is new)" in shown
    assert "The rights in the texts are not settled." in shown
    assert "Nothing was sent." in shown
    _, error = push(laid, "--what", "documents", "--export", folder, "--upload", code=2)
    assert "--accept-licence" in error
    assert server.asked == []


def test_an_export_becomes_one_commit(laid: Workspace, folder: Path, server: Hub) -> None:
    send = ("--what", "documents", "--export", folder, "--upload", "--accept-licence")
    (folder / "notes.txt").write_text("not of the export")
    shown, _ = push(laid, *send)
    assert f"pushed: {server.url}/datasets/me/data/commit/" in shown
    ledger = read_ledger(folder)
    assert ledger
    names = {output.path for output in ledger.outputs} | {LEDGER}
    assert server.files == {name: (folder / name).read_bytes() for name in names}
    assert server.created == [("me/data", "dataset", "private")]
    assert [message.split(" with ")[0] for message in server.messages] == ["Push documents"]
    assert TOKEN not in shown


def test_another_push_replaces_the_last(laid: Workspace, folder: Path, server: Hub) -> None:
    send = ("--what", "documents", "--export", folder, "--upload", "--accept-licence")
    server.files["theirs.md"] = b"not ours"
    push(laid, *send)
    before, sent = set(server.files), len(server.sent)
    make(laid, folder, unit=1 << 20)  # fewer, larger shards
    _, said = push(laid, *send)
    assert "files that only the last push had" in said
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(server.files) == names - {"export.json", "timings.json", ".lock"} | {"theirs.md"}
    assert len(before) > len(server.files)
    push(laid, *send)
    assert len(server.sent) == len(set(server.sent)) > sent  # no large file was sent twice


def test_rows_and_tokenizer(laid: Workspace, server: Hub, tmp_path: Path) -> None:
    shutil.copytree(laid.root, tmp_path / "workspace")
    own = Workspace(tmp_path / "workspace")
    _, error = push(own, "--what", "rows", "--dataset", "wiki2019zh", code=1)
    assert "has no README.md" in error
    corpus("card", "--workspace", own.root, folder=tmp_path)
    push(own, "--what", "rows", "--dataset", "wiki2019zh", "--upload", "--accept-licence", "--public")
    assert {"README.md", "croissant.json", "dataset_dict.json", "train/data-00000.arrow"} <= set(server.files)
    assert server.created[-1] == ("me/data", "dataset", "public")
    server.files.clear()
    push(own, "--what", "tokenizer", "--upload", "--accept-licence")
    assert set(server.files) == {"README.md", LEDGER, "tokenizer.json", "tokenizer_config.json"}
    assert "The rights in the texts are not settled" in server.files["README.md"].decode()
    assert server.created[-1] == ("me/data", "model", "private")


def test_a_model(workspace: Workspace, server: Hub) -> None:
    run = workspace.models / "first"
    for name in ("model.safetensors", "README.md", "best/model.safetensors", "checkpoint-2/optimizer.pt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(name.encode())
    names = ("README.md", "best/model.safetensors", "model.safetensors")
    outputs = [workspace.file_digest(run / name, run) for name in names]
    ledger = Ledger(
        stage="train", dataset=None, version=1, config={}, inputs=[], outputs=outputs,
        counts={"mixture": {"wiki2019zh": {}, "demo": {}}}, fingerprint="",
    )  # fmt: skip
    write_ledger(run, ledger, {})
    shown, _ = push(workspace, "--what", "model", "--upload", "--accept-licence")
    assert "wiki2019zh: Source: " in shown
    assert "demo: The texts were written for corpus-zh" in shown
    assert set(server.files) == {output.path for output in outputs} | {LEDGER}  # no checkpoint


@pytest.mark.parametrize(
    ("token", "offline", "says"),
    [("hf_wrong", False, "does not know the token"), ("", False, "no token"), (TOKEN, True, "HF_HUB_OFFLINE")],
)
def test_a_hub_that_refuses(
    laid: Workspace, folder: Path, server: Hub, monkeypatch: pytest.MonkeyPatch, token: str, offline: bool, says: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    _, error = push(laid, "--what", "documents", "--export", folder, "--upload", "--accept-licence", code=1)
    assert says in error
    assert server.files == {}


def test_a_hub_that_fails_or_is_away(
    laid: Workspace, folder: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = ("--what", "documents", "--export", folder, "--upload", "--accept-licence")
    server.broken = True
    _, error = push(laid, *send, code=1)
    assert "sends only what the hub lacks" in error
    sent = len(server.sent)
    push(laid, *send)
    assert len(server.sent) == sent > 0  # the second push sent no large file again
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    _, error = push(laid, *send, code=1)
    assert "cannot be reached" in error


def test_folders_that_are_refused(laid: Workspace, folder: Path) -> None:
    def plan(what: str, place: Path) -> hub.Push:
        return hub.plan(hub.PushConfig(repo="me/data", what=what, folder=place), laid)

    with pytest.raises(WorkspaceError, match="holds what `export` made, not rows"):
        plan("rows", folder)
    with pytest.raises(WorkspaceError, match="nothing finished"):
        plan("documents", folder.parent)
    shard = next(folder.rglob("part-*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(DamageError, match="other bytes than its ledger says"):
        plan("documents", folder)
    values = json.loads((folder / LEDGER).read_bytes())
    values["outputs"][0]["path"] = "../secret"
    (folder / LEDGER).write_text(json.dumps(values))
    with pytest.raises(DamageError, match="outside its folder"):
        plan("documents", folder)
    for repo in ("data", "me/da/ta", "me/../data", "https://hub/me/data"):
        push(laid, "--repo", repo, "--what", "tokenizer", code=2)
