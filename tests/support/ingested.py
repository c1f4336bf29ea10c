"""Raw files of one dataset in every container, and what becomes of them when they are ingested."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from typing import Any

import pyarrow.parquet as pq
import zstandard

from corpus.pipeline.documents import stage as ingest
from corpus.pipeline.documents.stage import IngestConfig
from corpus.pipeline.workspace.layout import Workspace
from tests.support.documents import TRAIN, VALID
from tests.support.records import baike, baike_near, lines


def make(workspace: Workspace, **settings_: Any) -> Any:
    values: dict[str, Any] = {"dataset": "baike2018qa", "workers": 1} | settings_
    return ingest.run(IngestConfig(**values), workspace)


def documents(workspace: Workspace, dataset: str = "baike2018qa") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted(workspace.documents(dataset).glob("part-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def rejected(workspace: Workspace, dataset: str = "baike2018qa") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((workspace.documents(dataset) / "rejected").glob("part-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


PLAIN = {
    TRAIN: lines([*map(baike, range(299)), baike_near(299, 7)]), VALID: lines([baike(n) for n in range(300, 320)])
}  # fmt: skip
FORMS: dict[str, dict[str, bytes]] = {
    "plain": PLAIN,
    "zip": {"baike2018qa.zip": zip_of(PLAIN)},
    "zip in a folder": {"baike2018qa.zip": zip_of({f"baike2018qa/{name}": data for name, data in PLAIN.items()})},
    "tar": {"baike2018qa.tar": tar_of(PLAIN, "w")},
    "tar.gz": {"baike2018qa.tar.gz": tar_of(PLAIN, "w:gz")},
    "tar.zst": {"baike2018qa.tar.zst": zstandard.compress(tar_of(PLAIN, "w"))},
    "tar.xz": {"baike2018qa.tar.xz": tar_of(PLAIN, "w:xz")},
    "gz": {f"{name}.gz": gzip.compress(data) for name, data in PLAIN.items()},
    "xz": {f"{name}.xz": lzma.compress(data) for name, data in PLAIN.items()},
    "zst": {f"{name}.zst": zstandard.compress(data) for name, data in PLAIN.items()},
}
