"""A dataset of a user's own, from its manifest to rows: every later command knows it by its name."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corpus.pipeline import workflows
from corpus.pipeline.errors import ManifestError
from corpus.pipeline.inspect import lineage
from corpus.pipeline.storage.row_shards import open_rows
from corpus.pipeline.tokenizer import files, special_tokens
from corpus.pipeline.workspace.layout import Workspace
from corpus.train.data.collate import Collator, Rows
from tests.support.command import corpus
from tests.support.hub import TOKEN, Hub
from tests.support.records import lines
from tests.support.server import Server

MANIFEST = """name = "talks"
licence = "CC0-1.0"
source = "given"
min_length = 4

[document]
form = "chat"
turns = "messages"
id = ["n"]
"""


def talk(number: int) -> dict[str, Any]:
    sides = [f"第{number}个问题，问了第{turn}遍？" if turn % 2 == 0 else f"第{number}个回答，答了第{turn}遍。"
             for turn in range(2 + number % 3 * 2)]  # fmt: skip
    said = [{"role": ("user", "assistant")[at % 2], "content": side} for at, side in enumerate(sides)]
    return {"n": number, "messages": said, "topic": "雨"}


@pytest.fixture
def talks(tmp_path: Path) -> Workspace:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "talks_train.jsonl").write_bytes(lines([talk(n) for n in range(60)]))
    (tmp_path / "given" / "talks_dev.jsonl").write_bytes(lines([talk(n) for n in range(60, 70)]))
    (tmp_path / "talks.toml").write_text(MANIFEST, encoding="utf-8")
    workspace = Workspace(tmp_path / "workspace")
    workflows.ingest(workspace, manifests=[tmp_path / "talks.toml"], workers=1)
    return workspace


def test_conversations_become_rows_in_which_every_answer_is_learnt(talks: Workspace) -> None:
    workflows.pack(talks, vocab_size=400, seq_length=128, workers=1)
    report = workflows.pack(talks, datasets=["talks"], form="chat", seq_length=128, workers=1).rows[0]
    model = files.load(talks.tokenizer)
    user, assistant, pad = (
        model.token_to_id(token) for token in (special_tokens.USER, special_tokens.ASSISTANT, special_tokens.PAD)
    )
    assert pad is not None
    collator = Collator(seq_length=128, pad_id=pad, separator=0, answer_after=assistant, question_after=user)
    for split, count in (("train", 60), ("validation", 10)):
        rows = open_rows(talks.packed("talks", "chat"))[split]
        batch = collator(Rows([rows]).__getitems__(range(len(rows))))
        labels = batch["labels"].numpy()
        learnt = model.decode(labels[labels >= 0].tolist(), skip_special_tokens=False).split("<|endoftext|>")
        numbers = range(60) if split == "train" else range(60, 70)
        answers = [turn["content"] for n in numbers for turn in talk(n)["messages"] if turn["role"] == "assistant"]
        assert sorted(learnt) == sorted([*answers, ""])
        counts = report.ledger.counts["splits"][split]
        assert counts["documents"] == count
        assert counts["answer_tokens"] == int((labels >= 0).sum()) == np.count_nonzero(labels >= 0)
    segments, _ = lineage.row(talks, "talks", "train", 0, "chat")
    assert all(segment.rebuilt and segment.origin.rebuilt for segment in segments)
    assert any(segment.text.count("<|user|>") > 1 for segment in segments)
    assert "CC0-1.0" in (talks.packed("talks", "chat") / "README.md").read_text(encoding="utf-8")


def test_every_command_knows_it(talks: Workspace) -> None:
    folder = talks.root.parent
    corpus("pack", "--dataset", "talks", "--seq-length", 128, folder=folder)
    assert "talks: described by its manifest in the workspace" in corpus("datasets", folder=folder).stdout
    assert "packed/talks" in corpus("status", folder=folder).stdout
    assert "第7个问题" in corpus("trace", "--dataset", "talks", "--text", "第7个问题", folder=folder).stdout
    corpus("report", folder=folder)
    corpus("verify", folder=folder)
    assert "is not one of" in corpus("pack", "--dataset", "walks", folder=folder, code=2).stderr


def test_a_changed_manifest_reruns_and_a_built_in_name_is_refused(talks: Workspace) -> None:
    path = talks.root.parent / "talks.toml"
    path.write_text(MANIFEST.replace("min_length = 4", "min_length = 60"), encoding="utf-8")
    says = corpus("ingest", "--dataset", "talks", folder=talks.root.parent).stderr
    assert f"{path} has changed since it was given; --manifest {path} takes the change" in says
    result = workflows.ingest(talks, manifests=[path], workers=1)
    assert "min-length was 4 and is 60" in result.documents[0].reasons
    path.write_text(MANIFEST.replace('"talks"', '"demo"'), encoding="utf-8")
    with pytest.raises(ManifestError, match="'demo' is a built-in dataset"):
        workflows.ingest(talks, manifests=[path], workers=1)
    assert "demo" not in {path.stem for path in talks.manifests.glob("*.toml")}


def test_mirrors_members_and_splits_of_a_manifest(tmp_path: Path) -> None:
    """Archives come from a mirror, the next one where the first fails, with the member's split and checksum."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/first.jsonl", lines([{"t": f"第{n}篇写的是昨天的事。"} for n in range(20)]))
        archive.writestr("x/second.jsonl", lines([{"t": f"第{n}篇写的是今天的事。"} for n in range(20, 30)]))
        archive.writestr("x/notes.txt", "不要的文件")
    with Server({"/good/mine.zip": out.getvalue()}) as server:
        (tmp_path / "mine.toml").write_text(
            f"""name = "mine"
archive = "mine.zip"
[[mirrors]]
name = "gone"
files = ["{server.url("/gone/mine.zip")}"]
[[mirrors]]
name = "good"
files = ["{server.url("/good/mine.zip")}"]
[[members]]
pattern = "first.jsonl"
split = "train"
[[members]]
pattern = "second.jsonl"
split = "test"
[document]
form = "article"
body = "t"
""",
            encoding="utf-8",
        )
        result = workflows.ingest(Workspace(tmp_path / "workspace"), manifests=[tmp_path / "mine.toml"], workers=1)
    assert result.documents[0].ledger.counts["splits"] == {"train": 20, "test": 10}


def test_a_manifest_whose_files_do_not_come_leaves_nothing_behind(talks: Workspace, tmp_path: Path) -> None:
    bad = MANIFEST.replace('"talks"', '"walks"').replace('"given"', '"nowhere"')
    (tmp_path / "walks.toml").write_text(bad, encoding="utf-8")
    assert "there is no" in corpus("ingest", "--manifest", "walks.toml", folder=tmp_path, code=1).stderr
    assert "walks" not in talks.datasets()


def test_datasets_come_in_the_order_in_which_they_were_added(talks: Workspace, tmp_path: Path) -> None:
    """So a document that two of them have stays in the earlier one."""
    for name in ("zebra", "ant"):
        (tmp_path / f"{name}.toml").write_text(MANIFEST.replace('"talks"', f'"{name}"'), encoding="utf-8")
        workflows.ingest(talks, manifests=[tmp_path / f"{name}.toml"], workers=1)
    assert talks.datasets()[-3:] == ("talks", "zebra", "ant")
    used = {
        name: sum(batch.num_rows for batch in workflows.used_documents(talks, name)) for name in talks.datasets()[-3:]
    }
    assert used == {"talks": 70, "zebra": 0, "ant": 0}


def test_a_dataset_of_the_hub(tmp_path: Path) -> None:
    with Hub({"data/train.jsonl": lines([talk(n) for n in range(30)])}) as hub:
        environment = {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "no_proxy": "*",
            "PATH": str(Path(sys.executable).parent),
        }  # fmt: skip
        for command in (
            ["manifest", "init", "hf://datasets/one/talks"], ["ingest", "--manifest", "talks.toml", "--workers", "1"],
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-m", "corpus.pipeline.cli", *command], cwd=tmp_path, env=environment, text=True,
                capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    assert 'source = "hf://datasets/one/talks"' in (tmp_path / "talks.toml").read_text(encoding="utf-8")
    made = workflows.used_documents(Workspace(tmp_path / "workspace"), "talks")
    assert sum(batch.num_rows for batch in made) == 30
