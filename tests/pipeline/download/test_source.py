"""What --source may be, what of it is taken, and what a user is told when there is nothing to take."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from corpus.pipeline import manifest as manifests
from corpus.pipeline.download.http_client import open_client
from corpus.pipeline.download.planning import DownloadSource
from corpus.pipeline.download.retry import RetryPolicy
from corpus.pipeline.download.source import (
    DatasetNotFoundError,
    has_dataset,
    is_remote,
    names_one_file,
    resolve,
    tail_of,
)
from corpus.pipeline.errors import CorpusError, DownloadError, SourceError
from corpus.pipeline.humanize import shown_url
from tests.support.server import Behaviour, Server, page, status

FAST = RetryPolicy(connect_timeout_s=2, read_timeout_s=0.5, attempts=2, backoff_s=0.01, max_wait_s=0.5, max_redirects=3)
ZIP = b"PK\x03\x04" + bytes(2000) + b"PK\x05\x06" + bytes(18)


def resolved(source: str | Path, dataset: str = "baike2018qa", exclude: Path | None = None) -> DownloadSource:
    with open_client(FAST) as client:
        return resolve(str(source), manifests.load(dataset), client, exclude=exclude)


def names(source: str | Path, dataset: str = "baike2018qa") -> list[str]:
    return [file.path for file in resolved(source, dataset).files]


def put(folder: Path, *paths: str, data: bytes = ZIP) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst"])
def test_a_folder_with_the_archive(tmp_path: Path, ending: str) -> None:
    put(tmp_path, f"baike2018qa{ending}", "wiki_zh_2019.zip", "notes.txt")
    assert names(tmp_path) == [f"baike2018qa{ending}"]


def test_a_folder_named_like_the_dataset(tmp_path: Path) -> None:
    put(tmp_path, "news2016zh/new2016zh.zip", "baike2018qa/data/baike_qa_train.json", "baike2018qa/baike_qa_valid.json")
    assert names(tmp_path, "news2016zh") == ["new2016zh.zip"]
    assert names(tmp_path) == ["baike_qa_valid.json", "data/baike_qa_train.json"]


def test_the_archive_goes_before_unpacked_files(tmp_path: Path) -> None:
    put(tmp_path, "baike2018qa.zip", "baike_qa_train.json")
    assert names(tmp_path) == ["baike2018qa.zip"]


@pytest.mark.parametrize("ending", [".zip", ".tar.zst"])
def test_one_archive_under_any_name(tmp_path: Path, ending: str) -> None:
    put(tmp_path, f"my copy{ending}")
    assert names(tmp_path / f"my copy{ending}") == [f"my copy{ending}"]


def test_unpacked_files_plain_packed_and_as_parquet(tmp_path: Path) -> None:
    put(tmp_path, "wiki_zh/AA/wiki_00", "wiki_zh/AA/wiki_01.gz", "wiki_zh/AB/wiki_00.zst", "wiki_zh/AB/readme.md")
    assert names(tmp_path, "wiki2019zh") == ["wiki_zh/AA/wiki_00", "wiki_zh/AA/wiki_01.gz", "wiki_zh/AB/wiki_00.zst"]
    put(tmp_path, "a/baike_qa_train.json.xz", "a/baike_qa_valid.parquet", "a/train-baikeqa_zh.parquet")
    assert names(tmp_path) == ["a/baike_qa_train.json.xz"], "Parquet files are another copy of the same records"
    (tmp_path / "a/baike_qa_train.json.xz").unlink()
    assert names(tmp_path) == ["a/baike_qa_valid.parquet", "a/train-baikeqa_zh.parquet"]


def test_of_two_forms_of_a_file_the_plain_one_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "baike_qa_train.json.gz", "baike_qa_train.json", "baike_qa_valid.json.gz", "baike_qa_valid.json.part")
    assert names(tmp_path) == ["baike_qa_train.json", "baike_qa_valid.json.gz"]


def test_a_file_that_is_there_twice_is_not_guessed(tmp_path: Path) -> None:
    put(tmp_path, "old/baike_qa_train.json", "new/baike_qa_train.json")
    with pytest.raises(SourceError, match=r"baike_qa_train\.json is there twice, as new/.* and as old/"):
        resolved(tmp_path)


def test_one_unpacked_file(tmp_path: Path) -> None:
    put(tmp_path, "wiki_zh/AA/wiki_07", "baike_qa_valid.json.gz", "plain.txt", "wiki_07")
    assert names(tmp_path / "wiki_zh/AA/wiki_07", "wiki2019zh") == ["AA/wiki_07"]
    assert names(tmp_path / "baike_qa_valid.json.gz") == ["baike_qa_valid.json.gz"]
    assert names(tmp_path / "plain.txt", "wiki2019zh") == ["plain.txt"], "the plain-text layout that some mirrors ship"
    with pytest.raises(DatasetNotFoundError, match="wiki_07 is neither an archive"):
        resolved(tmp_path / "wiki_07")


def test_nothing_found_says_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "b.zip", "c.txt", "sub/d", "e", "f", "g\x1b[2J")
    with pytest.raises(DatasetNotFoundError) as caught:
        resolved(tmp_path)
    message = caught.value.message
    assert "looked for baike2018qa.zip (or .tar, .tar.gz," in message
    assert "baike_qa_train.json" in message
    assert "found a.csv, b.zip, c.txt, e, f and 2 more" in message
    assert "\x1b" not in message
    assert "https://github.com/" in caught.value.hint
    with pytest.raises(SourceError, match=r"there is no .*nowhere"):
        resolved(tmp_path / "nowhere")


def test_the_archive_of_another_dataset_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "wiki_zh_2019.zip")
    with pytest.raises(
        DatasetNotFoundError, match=r"wiki_zh_2019\.zip is the archive of wiki2019zh, not of baike2018qa"
    ):
        resolved(tmp_path / "wiki_zh_2019.zip")


def test_found_in_tells_which_of_five_are_there(tmp_path: Path) -> None:
    put(tmp_path, "baike2018qa.zip", "wiki_zh/AA/wiki_00")
    there = [name for name in manifests.CORPORA if has_dataset(str(tmp_path), name)]
    assert there == ["wiki2019zh", "baike2018qa"]
    with pytest.raises(SourceError, match="there is no"):
        has_dataset(str(tmp_path / "typo"), "baike2018qa")
    assert [name for name in manifests.CORPORA if has_dataset(str(tmp_path / "baike2018qa.zip"), name)] == [
        "baike2018qa"
    ]
    put(tmp_path, "mine.zip")
    with pytest.raises(SourceError, match=r"mine\.zip can be any dataset"):
        has_dataset(str(tmp_path / "mine.zip"), "baike2018qa")
    with pytest.raises(SourceError, match=r"/get\?id=7 can be any dataset"):
        has_dataset("https://127.0.0.1:9/get?id=7", "baike2018qa")


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "secret/baike2018qa.zip", "secret/deep/baike_qa_train.json", "given/baike_qa_valid.json")
    given = tmp_path / "given"
    (given / "baike2018qa.zip").symlink_to(tmp_path / "secret/baike2018qa.zip")
    (given / "deep").symlink_to(tmp_path / "secret/deep")
    (given / "baike2018qa").symlink_to(tmp_path / "secret")
    taken = resolved(given)
    assert [file.path for file in taken.files] == ["baike_qa_valid.json"]
    assert any("links were not followed" in note and "deep" in note for note in taken.notes)
    (given / "baike_qa_valid.json").unlink()
    with pytest.raises(
        DatasetNotFoundError, match=r"links that lead out of it were not followed: baike2018qa, baike2018qa\.zip, deep"
    ):
        resolved(given)
    (given / "again.zip").symlink_to(tmp_path / "secret/baike2018qa.zip")
    assert names(given / "again.zip") == ["again.zip"], "a link that the user typed is the user's own"


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    put(tmp_path, "store/x.zip")
    (tmp_path / "baike2018qa.zip").symlink_to("store/x.zip")
    assert names(tmp_path) == ["baike2018qa.zip"]


def test_pipes_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "baike2018qa.zip")
    put(tmp_path, ".cache/baike_qa_train.json", "__MACOSX/baike_qa_train.json", "data/baike_qa_valid.json")
    assert names(tmp_path) == ["data/baike_qa_valid.json"]


def test_the_workspace_is_not_its_own_source(tmp_path: Path) -> None:
    raw = tmp_path / "workspace/raw"
    put(raw, "baike2018qa/baike_qa_train.json")
    put(tmp_path, "data/baike_qa_train.json")
    assert [file.path for file in resolved(tmp_path, exclude=raw).files] == ["data/baike_qa_train.json"]
    with pytest.raises(SourceError, match="belongs to the workspace"):
        resolved(raw / "baike2018qa", exclude=raw)


@pytest.mark.parametrize("name", ["x" * 240 + ".zip", "a\nb.zip", "back\\slash.zip"])
def test_names_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    with pytest.raises(SourceError, match="name"):
        resolved(tmp_path / name)


def test_sums_bind_the_files_that_they_name(tmp_path: Path) -> None:
    put(tmp_path, "baike2018qa.zip")
    value = hashlib.sha256(ZIP).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{value}  ./baike2018qa.zip\nnonsense\n{'0' * 64} *other.zip\n")
    for source in (tmp_path, tmp_path / "baike2018qa.zip"):
        (file,) = resolved(source).files
        assert file.sha256 == value
    assert "baike2018qa: checked against SHA256SUMS at the source: 1 of 1 files" in resolved(tmp_path).notes


@pytest.fixture
def site() -> Iterator[Server]:
    with Server() as server:
        yield server


def test_a_url_prefix(site: Server) -> None:
    site.files = {"/d/baike2018qa.zip": ZIP, "/d/news2016zh/new2016zh.tar.gz": ZIP, "/d/web_text_zh_valid.json.gz": ZIP}
    for prefix in ("/d", "/d/"):
        (file,) = resolved(site.url(prefix)).files
        assert (file.path, file.bytes, file.shown) == ("baike2018qa.zip", len(ZIP), site.url("/d/baike2018qa.zip"))
    assert names(site.url("/d"), "news2016zh") == ["new2016zh.tar.gz"]
    assert names(site.url("/d"), "webtext2019zh") == ["web_text_zh_valid.json.gz"]
    with pytest.raises(DatasetNotFoundError, match=r"looked for wiki_zh_2019\.zip .* the server said 404 Not Found"):
        resolved(site.url("/d"), "wiki2019zh")
    assert [name for name in manifests.CORPORA if has_dataset(site.url("/d"), name, retry=FAST)] == [
        "news2016zh",
        "baike2018qa",
        "webtext2019zh",
    ]


def test_the_url_of_one_archive(site: Server) -> None:
    site.files = {"/d/x.tar.xz": ZIP, "/get": ZIP}
    assert names(site.url("/d/x.tar.xz")) == ["x.tar.xz"]
    (file,) = resolved(site.url("/get?id=7&token=hush")).files
    assert (file.path, file.shown) == ("baike2018qa.zip", site.url("/get?id=7&token=…"))
    with pytest.raises(SourceError, match=r"/d/y\.zip: 404 Not Found"):
        resolved(site.url("/d/y.zip"))


def test_a_server_that_has_a_page_for_everything(site: Server) -> None:
    for name in ("baike2018qa.zip", "baike2018qa.tar"):
        site.always(f"/{name}", page("Welcome"))
    with pytest.raises(DatasetNotFoundError, match="the server said 404 Not Found, an HTML page"):
        resolved(site.url())
    site.files["/baike2018qa.tgz"] = ZIP
    assert names(site.url()) == ["baike2018qa.tgz"]


@pytest.mark.parametrize("code", [403, 405, 501])
def test_a_server_that_knows_get_alone(site: Server, code: int) -> None:
    site.files = {"/baike2018qa.zip": ZIP}
    site.always("/baike2018qa.zip", status(code))
    site.script("/baike2018qa.zip", Behaviour())
    (file,) = resolved(site.url()).files
    assert file.bytes == len(ZIP)
    assert site.ranges("/baike2018qa.zip") == ["bytes=0-0"]


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(
        DownloadError, match=r"127\.0\.0\.1:9/baike2018qa\.zip: cannot be reached .* given up after 2 attempts"
    ):
        resolved("http://127.0.0.1:9/")


def test_other_file_systems() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/a/baike2018qa.zip", ZIP)
    files.pipe("/bucket/a/wiki_zh/AA/wiki_00.gz", ZIP)
    files.pipe("/bucket/a/webtext2019zh/webtext2019zh.zip", ZIP)
    files.pipe("/bucket/a/SHA256SUMS", f"{'1' * 64}  baike2018qa.zip\n".encode())
    (file,) = resolved("memory://bucket/a").files
    assert (file.path, file.bytes, file.sha256) == ("baike2018qa.zip", len(ZIP), "1" * 64)
    assert names("memory://bucket/a/", "wiki2019zh") == ["wiki_zh/AA/wiki_00.gz"]
    assert names("memory://bucket/a", "webtext2019zh") == ["webtext2019zh.zip"]
    assert names("memory://bucket/a/baike2018qa.zip") == ["baike2018qa.zip"]
    with pytest.raises(DatasetNotFoundError, match=r"found SHA256SUMS, baike2018qa\.zip, webtext2019zh, wiki_zh"):
        resolved("memory://bucket/a", "news2016zh")


def test_file_urls_are_folders(tmp_path: Path) -> None:
    put(tmp_path, "baike2018qa.zip")
    (file,) = resolved(f"file://{tmp_path}").files
    assert file.local == (tmp_path / "baike2018qa.zip").resolve()


@pytest.mark.parametrize("source", ["x" * 5000, "a\0b", "/" + "y/" * 3000])
def test_paths_that_cannot_be(source: str) -> None:
    with pytest.raises(SourceError):
        resolved(source)


@pytest.mark.parametrize("source", ["nosuchscheme://a/b", "abfs://me:hush@a/b"])
def test_file_systems_that_are_not_there(source: str) -> None:
    with pytest.raises(CorpusError) as caught:
        resolved(source)
    assert "hush" not in caught.value.message


def test_what_is_one_file(tmp_path: Path) -> None:
    put(tmp_path, "a.zip")
    one = [
        str(tmp_path / "a.zip"),
        f"file://{tmp_path}/a.zip",
        "https://h/a.tar.gz",
        "http://h/get?id=1",
        "s3://b/a.zip",
    ]
    many = [str(tmp_path), f"file://{tmp_path}", "https://h/a", "s3://b/a"]
    assert all(map(names_one_file, one))
    assert not any(map(names_one_file, many))
    assert [is_remote(source) for source in one] == [False, False, True, True, True]


def test_tails() -> None:
    wiki = manifests.load("wiki2019zh")
    assert tail_of(wiki, "x/wiki_zh/AA/wiki_00.gz") == tail_of(wiki, "AA/wiki_00") == "AA/wiki_00"
    assert tail_of(wiki, "wiki_zh/AA/other") is None
    assert tail_of(manifests.load("news2016zh"), "news2016zh_train.parquet") == "news2016zh_train.json"


def test_secrets_are_not_shown() -> None:
    assert (
        shown_url("https://me:pw@h.org:8/p/a.zip?X-Signature=f&id=7&bare#top")
        == "https://h.org:8/p/a.zip?X-Signature=…&id=7&…"
    )
    assert shown_url("s3://key:pw@bucket/a") == "s3://bucket/a"
