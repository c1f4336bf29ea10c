"""`--shard`: what a job prints, and where the flag is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import corpus


def test_jobs_of_an_array_and_the_run_that_finishes(tmp_path: Path) -> None:
    corpus("download", "--dataset", "demo", folder=tmp_path)
    done = corpus("ingest", "--dataset", "demo", "--shard", "1/2", "--json", folder=tmp_path)
    (job,) = json.loads(done.stdout)
    fields = {"stage", "dataset", "share", "pieces", "made", "kept", "finished", "seconds", "notes"}
    assert set(job) == fields
    shown = [job[name] for name in ("stage", "dataset", "share", "finished", "kept")]
    assert shown == ["ingest", "demo", "1/2", False, 0]
    assert f"documents/demo: partial: {job['made']} of {job['pieces']} pieces are there" in (
        corpus("status", folder=tmp_path).stdout
    )
    assert "2/2" in corpus("ingest", "--shard", "2/2", folder=tmp_path).stdout  # of all that is downloaded
    (ingested, dedup) = json.loads(corpus("ingest", "--dataset", "demo", "--json", folder=tmp_path).stdout)
    assert (ingested["stage"], ingested["skipped"], dedup["stage"]) == ("ingest", False, "dedup")
    late = corpus("ingest", "--dataset", "demo", "--shard", "1/2", folder=tmp_path)
    assert "demo: finished before: nothing to do" in late.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ingest", "--shard", "0/16"], "shares count from 1"),
        (["ingest", "--shard", "5"], "must be I/N"),
        (["ingest", "--shard", "1/2", "--source", "."], "--source must not stand with --shard: run `corpus download"),
        (["ingest", "--shard", "1/2", "--against", "x.jsonl"], "--against must not stand with --shard"),
        (["pack", "--shard", "1/2", "--exclude", "ids.txt"], "add the ids to exclude.txt"),
        (["clean", "--shard", "1/2"], "--shard must not stand here: `corpus ingest --shard` does the same"),
        (["decontaminate", "--shard", "1/2", "--forget", "x"], "--forget must not stand with --shard"),
        (["quality", "--shard", "1/2"], "--shard needs --model FILE"),
        (["download", "--shard", "1/2"], "run it once, before the jobs"),
        (["tokenizer", "--shard", "1/2"], "before `corpus pack`"),
    ],
)
def test_where_the_flag_is_refused(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = corpus(*arguments, folder=tmp_path, code=2)
    assert says in " ".join(done.stderr.split())
    assert not list(tmp_path.iterdir())


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    done = corpus("ingest", "--shard", "1/2", folder=tmp_path, code=1)
    assert "`corpus download`" in done.stderr
