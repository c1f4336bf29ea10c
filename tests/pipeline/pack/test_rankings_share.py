"""A share of the rankings: jobs leave what one run leaves."""

from __future__ import annotations

import shutil

import pytest

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.pack import ranking_partitions
from corpus.pipeline.pack import ranking_stage as ranking
from corpus.pipeline.pack.ranking_stage import RankingConfig
from corpus.pipeline.workflows import shares as workflow
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.packed import lay_tokenizer
from tests.support.records import LayRaw, lines
from tests.support.shares import emptied, leave_what_one_run_leaves

MANIFEST = (
    'name = "mine"\nmin_length = 1\nvalidation_share = 0.2\n[document]\nform = "question"\ntitle = "q"\nanswer = "a"\n'
    '[document.votes]\nquestion = "qid"\nscore = "star"\ntime = "n"\n'
)


@pytest.fixture
def ready(workspace: Workspace, lay_raw: LayRaw, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Answers with votes, some without a score or a question, in several documents shards and partitions."""
    records = [
        {
            "q": "" if n % 17 == 3 else f"问{n // 3}？", "a": f"答{n}", "qid": n // 3, "n": n,
            "star": None if n % 23 == 5 else n % 7,
        }
        for n in range(150)
    ]  # fmt: skip
    path = workspace.root.parent / "mine.toml"
    path.write_text(MANIFEST, encoding="utf-8")
    workspace.root.mkdir(exist_ok=True)
    workspace.add_manifest(path)
    lay_raw("mine", {"records.jsonl": lines(records)})
    ingest.run(IngestConfig(dataset="mine", workers=1, piece_bytes=2_000), workspace)
    lay_tokenizer(workspace)
    monkeypatch.setattr(ranking_partitions, "PARTITION_CHARACTERS", 150)
    return workspace


def job(workspace: Workspace, share: Share) -> ShareReport:
    (report,) = workflow.rankings(Workspace(workspace.root), share, datasets=("mine",), workers=1)
    return report


def test_shares_leave_what_one_run_leaves(ready: Workspace) -> None:
    config, folder = RankingConfig(dataset="mine", workers=1), ready.rankings("mine")
    counts = ranking.run(config, ready).ledger.counts
    left_out = counts["answers"]["left_out"]
    assert left_out["without_prompt"] > 3
    assert left_out["no_score"] > 3
    leave_what_one_run_leaves(
        folder, lambda share: job(ready, share), lambda: ranking.run(config, Workspace(ready.root)),
        lambda: emptied(folder), seed=4,
    )  # fmt: skip


def test_status_and_the_tokenizer(ready: Workspace) -> None:
    report = job(ready, Share(1, 3))
    why = [row.why for row in survey(Workspace(ready.root)) if row.area == "ranking"]
    assert why == [f"{report.made} of {report.pieces} pieces are there"]
    shutil.rmtree(ready.tokenizer)
    with pytest.raises(WorkspaceError, match="no tokenizer"):
        job(ready, Share(2, 3))
