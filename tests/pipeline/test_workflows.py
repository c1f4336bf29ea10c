"""Several stages as one call: results, messages, locks, and what is refused before any work."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline import workflows
from corpus.pipeline.errors import BusyError, SourceError, WorkspaceError
from corpus.pipeline.progress import Progress
from corpus.pipeline.workflows import sources
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID
from tests.support.records import baike, baike_near, lines
from tests.support.runs import narrowed
from tests.support.scored import make, random_model


class Messages(Progress):
    """What was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A folder with one of the five corpora: 141 records: one is empty, one an exact and one a near duplicate."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    records = [*map(baike, range(118)), baike_near(118, 7), baike(5, qid="qid_again"), baike(999, answer="")]
    (folder / TRAIN).write_bytes(lines(records))
    (folder / VALID).write_bytes(lines([baike(n) for n in range(120, 140)]))
    return str(folder)


def test_ingest_and_pack(workspace: Workspace, source: str, capfd: pytest.CaptureFixture[str]) -> None:
    progress = Messages()
    ingested = workflows.ingest(workspace, source=source, progress=progress)
    assert [report.ledger.dataset for report in ingested.documents] == ["baike2018qa"]
    assert ingested.documents[0].ledger.counts["dropped"] == {"empty": 1}
    assert [report.ledger.stage for report in ingested.lists] == ["dedup"]
    assert [(out.documents, dict(out.reasons)) for out in ingested.left_out] == [
        (2, {"exact_duplicate": 1, "near_duplicate": 1})
    ]
    assert any(message.startswith("not at ") and "wiki2019zh" in message for message in progress.said)
    packed = workflows.pack(workspace, vocab_size=400, seq_length=64, progress=progress)
    assert packed.tokenizer is not None
    assert packed.tokenizer.ledger.counts["entries"] <= 400
    assert [report.ledger.config["seq_length"] for report in packed.rows] == [64]
    folder = workspace.packed("baike2018qa")
    assert {"README.md", "croissant.json", "ledger.json"} <= {path.name for path in folder.iterdir()}
    splits = packed.rows[0].ledger.counts["splits"]
    used = Counter(
        row["split"] for batch in workflows.used_documents(workspace, "baike2018qa") for row in batch.to_pylist()
    )
    assert used == {split: count["documents"] for split, count in splits.items()} == {"train": 118, "validation": 20}
    again = workflows.pack(workspace, seq_length=64)
    assert again.tokenizer is None
    assert again.rows[0].skipped
    assert workflows.ingest(workspace, datasets=["baike2018qa"], dedup=False).left_out == ()
    for result in (ingested, packed):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, ())
    assert capfd.readouterr() == ("", "")


def test_ingest_ends_well_where_the_learned_score_is_of_other_documents(
    workspace: Workspace, source: str, tmp_path: Path
) -> None:
    progress, model = Messages(), random_model(tmp_path / "given.safetensors")
    workflows.ingest(workspace, source=source, workers=1)
    make(workspace, model=model)
    (left_out,) = workflows.ingest(workspace, source=source, workers=1).left_out
    assert left_out.reasons["low_quality"]
    (left_out,) = workflows.ingest(workspace, source=source, workers=1, min_length=1, progress=progress).left_out
    assert left_out.reasons == {"exact_duplicate": 1, "near_duplicate": 1}
    assert any("so no rows can be packed yet. Run `corpus quality` again." in said for said in progress.said)


def test_removals(workspace: Workspace, source: str, tmp_path: Path) -> None:
    workflows.ingest(workspace, datasets=["baike2018qa"], source=source)
    ids = [row["id"] for batch in workflows.used_documents(workspace, "baike2018qa") for row in batch.to_pylist()]
    listed, progress = tmp_path / "ids.txt", Messages()
    listed.write_text(f"{ids[3]}\nnobody\n")
    packed = workflows.pack(workspace, exclude=[listed], vocab_size=400, seq_length=64, progress=progress)
    assert packed.rows[0].ledger.counts["splits"]["train"]["documents"] == 117
    assert any(said.startswith("1 of 2 excluded ids are no documents of what was packed") for said in progress.said)
    left = [row["id"] for batch in workflows.used_documents(workspace, "baike2018qa") for row in batch.to_pylist()]
    assert left == [name for name in ids if name != ids[3]]


def test_download_and_clean_are_the_halves_of_ingest(workspace: Workspace, source: str) -> None:
    (downloaded,) = workflows.download(workspace, source=source)
    assert downloaded.folder == workspace.raw("baike2018qa")
    (cleaned,) = workflows.clean(workspace, min_length=10)
    assert cleaned.ledger.config["min_length"] == 10
    assert workflows.ingest(workspace, datasets=["baike2018qa"], min_length=10).documents[0].skipped


@pytest.mark.parametrize(
    ("call", "arguments", "says"),
    [
        (workflows.download, {"datasets": ["wiki"]}, "--dataset must be one of"),
        (workflows.ingest, {"source": " "}, "--source must name"),
        (workflows.ingest, {"datasets": ["demo"], "min_length": -3}, "--min-length"),
        (workflows.ingest, {"datasets": ["demo"], "off": ("nonsense",)}, "--no-rule"),
        (workflows.ingest, {"datasets": ["demo"], "workers": -1}, "--workers"),
        (workflows.clean, {"workers": -1}, "--workers"),
        (workflows.pack, {"seq_length": 1}, "--seq-length"),
        (workflows.pack, {"vocab_size": 9}, "--vocab-size"),
        (workflows.demo, {"max_steps": 0}, "--max-steps"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    workspace: Workspace, call: Callable[..., Any], arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(workflows.UsageError, match=says):
        call(workspace, **arguments)
    assert not workspace.root.exists()


def test_an_unreadable_evaluation_file_is_named_before_any_work(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jsonl cannot be read"):
        workflows.ingest(workspace, datasets=["demo"], against=[tmp_path / "nowhere.jsonl"])
    assert not workspace.root.exists()


def test_an_error_of_a_stage_is_not_wrong_usage(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="holds no documents"):
        workflows.pack(workspace)
    with pytest.raises(WorkspaceError, match="holds nothing downloaded"):
        workflows.clean(workspace)


@pytest.mark.parametrize("name", ["download", "clean", "ingest", "pack", "demo"])
def test_each_call_takes_the_lock(workspace: Workspace, name: str) -> None:
    arguments = {} if name in {"clean", "pack", "demo"} else {"datasets": ["demo"]}
    with workspace.writing("pack"), pytest.raises(BusyError):
        getattr(workflows, name)(workspace, **arguments)
    assert {path.name for path in workspace.root.iterdir()} <= {".lock", ".digests.json"}


def test_a_demo(workspace: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []
    with narrowed():
        result = workflows.demo(workspace, max_steps=2, on_result=seen.append)
    assert seen == [result.ingest, result.pack, result.train]
    assert [sample.prompt for sample in result.samples] == ["我肚子痛了，要怎么办？", "潮汐"]
    assert result.train.folder.parent == workspace.models
    assert "1." not in capfd.readouterr().out


def test_no_terminal_and_no_torch_are_loaded() -> None:
    """httpx itself loads click and rich, so these are looked for in the source."""
    code = (
        "import sys, corpus.pipeline.workflows\n"
        "odd = {'torch', 'transformers', 'corpus.pipeline.terminal', 'corpus.pipeline.cli'} & set(sys.modules)\n"
        "assert not odd, odd\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not re.search(
        r"\b(print\(|import (click|rich)|from (click|rich))", inspect.getsource(workflows) + inspect.getsource(sources)
    )


def test_everything_public_is_named() -> None:
    own = {
        name
        for name, value in vars(workflows).items()
        if getattr(value, "__module__", "") == workflows.__name__ and not name.startswith("_")
    }
    assert own == set(workflows.__all__)
