"""Sources of a user's own: which files are read, their splits, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.pipeline import workflows
from corpus.pipeline.errors import ManifestError, SourceError
from corpus.pipeline.manifest import parse
from corpus.pipeline.workspace.layout import Workspace
from tests.support.own import documents
from tests.support.records import lines
from tests.support.server import Server

ARTICLE = '[document]\nform = "article"\nbody = "t"\n'


def article(number: int) -> dict[str, str]:
    return {"t": f"第{number}篇，写的是第{number}件事。"}


def ingest(folder: Path, files: dict[str, bytes], manifest: str = "") -> Workspace:
    """Documents of a folder of files, without a search for duplicates."""
    for name, data in files.items():
        (folder / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "given" / name).write_bytes(data)
    text = manifest or f'name = "dumps"\nsource = "given"\n{ARTICLE}'
    (folder / "dumps.toml").write_text(text, encoding="utf-8")
    workspace = Workspace(folder / "workspace")
    workflows.ingest(workspace, manifests=[folder / "dumps.toml"], dedup=False, workers=1)
    return workspace


def table(*numbers: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"t": [article(n)["t"] for n in numbers], "picture": [b"\xff" * 9] * len(numbers)}), out)
    return out.getvalue()


def in_zip(name: str, data: bytes, *more: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, content in ((name, data), *more):
            archive.writestr(each, content)
    return out.getvalue()


def test_every_file_of_a_folder_is_read_whatever_its_kind(tmp_path: Path) -> None:
    """Parquet beside other forms, a subfolder with the dataset's name, archives whose members have one name."""
    files = {
        "a.jsonl": lines([article(1)]), "b.parquet": table(2, 3), "dumps/c.jsonl": lines([article(4)]),
        "one.zip": in_zip("x.json", lines([article(5)]), ("y.json", json.dumps([article(6)]).encode())),
        "two.zip": in_zip("x.json", lines([article(7)])),
    }  # fmt: skip
    found = documents(ingest(tmp_path, files))
    assert sorted(row["text"] for row in found) == [article(n)["t"] for n in range(1, 8)]
    assert len({row["id"] for row in found}) == 7
    assert not any("picture" in row["meta"] for row in found)


def test_words_for_splits_in_names_and_folders(tmp_path: Path) -> None:
    names = ["train.jsonl", "val.jsonl", "default/test/0.jsonl", "eval-2.jsonl", "latest.jsonl", "测试/1.jsonl"]
    found = documents(ingest(tmp_path, {name: lines([article(n)]) for n, name in enumerate(names)}))
    splits = {row["source_file"]: row["split"] for row in found}
    assert splits == dict(zip(names, ["train", "validation", "test", "validation", "train", "test"], strict=True))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"ledger.json": b"{}"}, "a name that the workspace uses itself"),
        ({"a.zip": in_zip("x.parquet", table(1))}, "Parquet inside an archive"),
    ],
)  # fmt: skip
def test_sources_that_are_refused_by_name(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        ingest(tmp_path, files)


@pytest.mark.parametrize("name", ["clusters", "hits"])
def test_names_that_the_workspace_uses(name: str) -> None:
    with pytest.raises(ManifestError, match="the workspace uses itself"):
        parse(f'name = "{name}"\n{ARTICLE}', where="m", own=True)


def test_a_mirror_cannot_name_a_file_outside(tmp_path: Path) -> None:
    """A name that climbs out when it is unquoted, and one that is packed."""
    files = {"/..%2f..%2f..%2fout.jsonl": lines([article(1)]), "/m/a.jsonl.gz": gzip.compress(lines([article(2)]))}
    with Server(files | {unquote(path): data for path, data in files.items()}) as server:
        for number, path in enumerate(files):
            folder = tmp_path / str(number) / "deep" / "er"
            folder.mkdir(parents=True)
            text = f'name = "dumps"\n[[mirrors]]\nname = "m"\nfiles = ["{server.url(path)}"]\n{ARTICLE}'
            assert len(documents(ingest(folder, {}, text))) == 1
            found = [*tmp_path.rglob("*.jsonl"), *tmp_path.rglob("*.jsonl.gz")]
            assert {file.parent for file in found} <= {each / "raw/dumps" for each in tmp_path.rglob("workspace")}


def test_rejected_records_of_a_batch_go_with_its_shard(tmp_path: Path) -> None:
    """Stopped after rejected/ was written, then run with the old setting again: no stale rejected shard."""
    workspace = ingest(tmp_path, {"a.jsonl": lines([article(n) for n in range(20)])})
    rejected = workspace.documents("dumps") / "rejected"
    rejected.mkdir(exist_ok=True)
    (rejected / "part-00000.parquet").write_bytes(b"of a run that was stopped")
    (tmp_path / "given/b.jsonl").write_bytes(lines([article(n) for n in range(20, 30)]))
    report = workflows.ingest(workspace, datasets=["dumps"], dedup=False, workers=1).documents[0]
    assert not [each.path for each in report.ledger.outputs if "rejected" in each.path]
    assert not list(rejected.glob("*.parquet"))
