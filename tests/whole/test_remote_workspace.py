"""The command line on a workspace in a storage: each command works there, and names it by its URL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corpus.pipeline.store import open_workspace
from tests.support.command import corpus
from tests.support.records import Shared
from tests.support.remote import lay_source, objects, walk


@pytest.fixture(scope="session")
def bucket(shared: Shared) -> str:
    """The URL of a workspace with rows, which tests only read."""

    def make(folder: Path) -> None:
        walk(open_workspace(f"file://{folder}/bucket", folder / "cache"), lay_source(folder / "source"))

    return f"file://{shared('remote-bucket', make)}/bucket"


def test_reading_commands(bucket: str, tmp_path: Path) -> None:
    before = objects(bucket)
    place = {"CORPUS_WORKSPACE": bucket, "CORPUS_CACHE": str(tmp_path / "cache"), "folder": tmp_path}
    rows = json.loads(corpus("status", "--json", **place).stdout)  # type: ignore[arg-type]  # paths and variables
    assert {row["area"]: row["state"] for row in rows}["packed"] == "finished"
    assert not list((tmp_path / "cache").rglob("part-*.parquet"))
    assert "--- baike2018qa" in corpus("inspect", "-n", 1, **place).stdout  # type: ignore[arg-type]
    assert "the same again" in corpus("trace", "baike2018qa:0", **place).stdout  # type: ignore[arg-type]
    assert "as their ledgers say" in corpus("verify", **place).stdout  # type: ignore[arg-type]
    assert objects(bucket) == before
    assert f"report: {Path(bucket[7:])}/report" in corpus("report", **place).stdout.replace("file://", "")  # type: ignore[arg-type]
    assert "report/index.html" in objects(bucket)


def test_writing_commands_and_other_machines(tmp_path: Path) -> None:
    url, source = f"file://{tmp_path}/bucket", lay_source(tmp_path / "source")
    ingest = ("ingest", "--dataset", "baike2018qa", "--source", source, "--workers", 1, "--workspace", url)
    said = corpus(*ingest, folder=tmp_path, CORPUS_CACHE=str(tmp_path / "one")).stdout
    assert f"ledger: {tmp_path}/bucket/documents/baike2018qa/ledger.json" in said
    assert f"next: corpus pack --dataset baike2018qa --workspace {url}" in said
    again = corpus(*ingest, folder=tmp_path, CORPUS_CACHE=str(tmp_path / "two"))
    assert "was finished" in again.stdout
    chat = ("pack", "--form", "chat", "--seq-length", 64, "--workers", 1, "--workspace", url)
    corpus(*chat, folder=tmp_path, CORPUS_CACHE=str(tmp_path / "three"))
    assert {"chat/baike2018qa/README.md", "tokenizer/tokenizer.json", "dedup/ledger.json"} <= objects(url).keys()
    out = tmp_path / "exported"
    export = ("export", "--format", "nanogpt", out, "--workspace", url)
    corpus(*export, folder=tmp_path, CORPUS_CACHE=str(tmp_path / "four"))
    assert (out / "train.bin").is_file()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://name:secret@bucket/corpus", "the URL has a password"),
        ("nothing://bucket", "nothing://bucket cannot be opened"),
    ],
)
def test_urls_that_are_refused(url: str, said: str, tmp_path: Path) -> None:
    errors = corpus("status", "--workspace", url, folder=tmp_path, code=1).stderr
    assert said in errors
    assert "secret" not in errors


def test_an_unknown_dataset_is_wrong_usage_there_too(bucket: str, tmp_path: Path) -> None:
    place = ("--workspace", bucket)
    done = corpus("pack", "--dataset", "none", *place, folder=tmp_path, code=2, CORPUS_CACHE=str(tmp_path / "cache"))
    assert "'none' is not one of" in done.stderr
