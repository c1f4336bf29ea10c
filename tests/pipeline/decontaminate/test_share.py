"""A share of the search for evaluation items: jobs leave what one run leaves; a killed run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corpus.pipeline.decontaminate import search
from corpus.pipeline.decontaminate import stage as decontaminate
from corpus.pipeline.decontaminate.config import DecontaminateConfig
from corpus.pipeline.errors import WorkspaceError
from corpus.pipeline.inspect.status import survey
from corpus.pipeline.workflows import UsageError
from corpus.pipeline.workflows import shares as workflow
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.share import Share, ShareReport
from tests.support.documents import Listener
from tests.support.shares import emptied, leave_what_one_run_leaves, outputs

Sets = tuple[Path, Path]


@contextmanager
def searches(monkeypatch: pytest.MonkeyPatch, most: int) -> Iterator[list[str]]:
    """The pieces that are searched; Ctrl-C comes after `most` of them."""
    searched, right = list[str](), search.search_shard

    def counted(shard: search.SearchShard, **named: Any) -> Any:
        if len(searched) == most:
            raise KeyboardInterrupt
        searched.append(shard.piece)
        return right(shard, **named)

    with monkeypatch.context() as patched:
        patched.setattr(decontaminate, "search_shard", counted)
        yield searched


@pytest.mark.parametrize("cut", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_shares_leave_what_one_run_leaves(ready: Workspace, sets: Sets, *, cut: bool) -> None:
    config = DecontaminateConfig(against=sets, cut=cut, workers=1)

    def job(share: Share) -> ShareReport:
        return workflow.decontaminate(Workspace(ready.root), share, config)

    leave_what_one_run_leaves(
        ready.decontaminate, job, lambda: decontaminate.run(config, Workspace(ready.root)),
        lambda: emptied(ready.decontaminate), seed=cut, counts=(1, 2, 40) if cut else (3,),
    )  # fmt: skip
    assert not (ready.decontaminate / "matches").exists()


def test_a_killed_run_goes_on(ready: Workspace, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    config, listener = DecontaminateConfig(against=sets, workers=1), Listener()
    decontaminate.run(config, ready)
    alone = outputs(ready.decontaminate)
    emptied(ready.decontaminate)
    with searches(monkeypatch, 2) as first, pytest.raises(KeyboardInterrupt):
        decontaminate.run(config, ready)
    with searches(monkeypatch, -1) as rest:
        decontaminate.run(config, Workspace(ready.root), progress=listener)
    assert len(first) == 2
    assert rest
    assert not {*first} & {*rest}
    assert any("2 of" in message for message in listener.said)
    assert outputs(ready.decontaminate) == alone


def test_status_and_what_jobs_need(ready: Workspace, sets: Sets) -> None:
    with pytest.raises(WorkspaceError, match="no evaluation files"):
        workflow.decontaminate(ready, Share(1, 2), DecontaminateConfig())
    with pytest.raises(UsageError, match="--forget must not stand"):
        workflow.decontaminate(ready, Share(1, 2), DecontaminateConfig(forget=("short.txt",)))
    report = workflow.decontaminate(ready, Share(2, 2), DecontaminateConfig(against=sets, workers=1))
    why = [row.why for row in survey(Workspace(ready.root)) if row.area == "decontaminate"]
    assert why == [f"{report.made} of {report.pieces} pieces are there"]
    assert report.dataset is None
