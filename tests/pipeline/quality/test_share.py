"""A share of the scoring with a given model: jobs leave what one run leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from corpus.pipeline.inspect.status import survey
from corpus.pipeline.quality import QualityConfig
from corpus.pipeline.quality import stage as quality
from corpus.pipeline.workflows import UsageError
from corpus.pipeline.workflows import shares as workflow
from corpus.pipeline.workspace import receipts
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.scored import lay, random_model
from tests.support.shares import emptied, leave_what_one_run_leaves, outputs


def job(workspace: Workspace, share: Share, config: QualityConfig) -> ShareReport:
    return workflow.quality(Workspace(workspace.root), share, config)


def test_shares_leave_what_one_run_leaves(workspace: Workspace, tmp_path: Path) -> None:
    lay(workspace)
    config = QualityConfig(model=random_model(tmp_path / "model"), workers=1)
    leave_what_one_run_leaves(
        workspace.quality, lambda share: job(workspace, share, config),
        lambda: quality.run(config, Workspace(workspace.root)), lambda: emptied(workspace.quality), seed=1,
    )  # fmt: skip


def test_scores_of_an_earlier_run_are_kept_and_get_the_receipts_of_their_makers(
    workspace: Workspace, tmp_path: Path
) -> None:
    """With another alpha the lists are others, the scores are not."""
    lay(workspace)
    config = QualityConfig(model=random_model(tmp_path / "model"), workers=1)
    quality.run(config, workspace)
    other = QualityConfig(model=config.model, alpha=3, workers=1)
    adopted = job(workspace, Share(1, 1), other)
    assert (adopted.made, adopted.kept) == (0, adopted.pieces)
    told = [found.receipt.to_json() for found in receipts.read_all(workspace.quality)]
    quality.run(other, Workspace(workspace.root))
    left = outputs(workspace.quality)
    emptied(workspace.quality)
    assert job(workspace, Share(1, 1), other).made == adopted.pieces
    assert [found.receipt.to_json() for found in receipts.read_all(workspace.quality)] == told
    why = [row.why for row in survey(Workspace(workspace.root)) if row.area == "quality"]
    assert why == [f"{adopted.pieces} of {adopted.pieces} pieces are there"]
    quality.run(other, Workspace(workspace.root))
    assert outputs(workspace.quality) == left


def test_training_is_not_shared(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--shard needs --model FILE"):
        job(workspace, Share(1, 2), QualityConfig())
    with pytest.raises(UsageError, match="--positive must not stand with --shard"):
        job(workspace, Share(1, 2), QualityConfig(positive=("wiki2019zh",)))
