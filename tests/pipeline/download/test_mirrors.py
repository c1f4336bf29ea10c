"""What mirrors give: the wrong file, not all files, none at all, more than there is room for."""

from __future__ import annotations

import hashlib

import pytest

from corpus.pipeline.errors import ChecksumError, DiskError, DownloadError
from corpus.pipeline.workspace.layout import Workspace
from tests.support.archives import (
    DATA,
    NAME,
    OTHER,
    A,
    B,
    Said,
    assert_unfinished,
    assert_whole,
    from_mirrors,
    from_url,
    mirrored,
)
from tests.support.server import Behaviour, Server, cut, page, status


def test_an_html_page_instead_of_the_archive_is_named(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, page("Google Drive - Quota exceeded\x1b[31m"))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    words = '("Google Drive - Quota exceeded⟨001B⟩[31m"); next: mirror 2'
    assert f"{server.url(A)}: received an HTML page instead of the file {words}" in said.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "no such object"}', r"it is not a \.zip file \(its first bytes are 7b 22"),
        (b"", "it is empty"),
        (b"\xef\xbb\xbf\n<HTML><title>\n Log\n in</title>", r'received an HTML page instead of the file \("Log in"\)'),
    ],
)
def test_something_else_instead_of_the_archive(server: Server, workspace: Workspace, body: bytes, words: str) -> None:
    server.always(A, Behaviour(body=body))
    with pytest.raises(DownloadError, match=words):
        from_mirrors(workspace, mirrored(server.url(A)), Said())
    assert_unfinished(workspace)


def test_a_file_that_is_packed_on_the_way_is_refused(server: Server, workspace: Workspace) -> None:
    server.files["/baike_qa_valid.json"] = b"\x1f\x8bnot what was asked for"
    server.always("/baike_qa_valid.json", Behaviour(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(DownloadError, match="the server sent it gzip-encoded although no encoding was requested"):
        from_url(workspace, server.url("/baike_qa_valid.json"), Said())
    server.always(A, Behaviour(headers={"Content-Encoding": "gzip", "Content-Type": "text/html"}))
    from_mirrors(workspace, mirrored(server.url(A)), Said())
    assert_whole(workspace)


def test_a_wrong_checksum_is_refused_and_fetched_anew(server: Server, workspace: Workspace) -> None:
    server.files["/a/SHA256SUMS"] = f"{sha256_of(OTHER)}  {NAME}\n".encode()
    with pytest.raises(ChecksumError) as caught:
        from_url(workspace, server.url("/a"), Said())
    assert caught.value.message == (
        f"{server.url(A)}: its SHA-256 is {sha256_of(DATA)} but should be {sha256_of(OTHER)}; rejected"
    )
    assert_unfinished(workspace)
    server.files[A] = OTHER
    report = from_url(workspace, server.url("/a"), Said())
    assert_whole(workspace, OTHER)
    assert report.notes == ("baike2018qa: checked against SHA256SUMS at the source: 1 of 1 files",)
    assert server.ranges(A) == ["", ""], "nothing of the refused file was used"


def test_a_wrong_checksum_of_an_official_member_leads_to_the_next_mirror(server: Server, workspace: Workspace) -> None:
    said = Said()
    member = "/a/baike_qa_valid.json"
    server.files[member] = '{"qid": "1", "title": "不是官方的那份"}\n'.encode()
    from_mirrors(workspace, mirrored(server.url(member), server.url(B)), said)
    assert_whole(workspace)
    assert "but should be 6f51d066002dda21db91b94501fb87b3626772dd81ff91cd19cc4ae2c73c12a7" in said.text


def test_no_mirror_at_all_says_what_to_type(server: Server, workspace: Workspace) -> None:
    said = Said()
    drive = server.url("/drive/download?id=1&export=download")
    manifest = mirrored(server.url("/x.zip"), "http://127.0.0.1:9/y.zip", drive)
    with pytest.raises(DownloadError) as caught:
        from_mirrors(workspace, manifest, said)
    message, hint = caught.value.message, caught.value.hint
    assert message.startswith(f"none of the 3 mirrors gave {NAME} whole")
    assert "mirror 1: 404 Not Found; mirror 2: cannot be reached" in message
    assert f"mirror 1: {server.url('/x.zip')}: 404 Not Found; next: mirror 2" in said.text
    assert manifest.homepage in hint
    assert drive in hint
    assert f"corpus ingest --dataset baike2018qa --source FOLDER_WITH_{NAME}" in hint
    assert said.lines[-1].endswith("that was the last mirror")
    assert_unfinished(workspace)


def test_a_mirror_of_several_files_needs_all_of_them(server: Server, workspace: Workspace) -> None:
    parquet = b"PAR1" + bytes(5000) + b"PAR1"
    train, valid = "/hub/train-baikeqa_zh.parquet", "/hub/valid-baikeqa_zh.parquet"
    server.files |= {train: parquet, valid: parquet + b"cut"}
    manifest = mirrored((server.url(train), server.url(valid)), server.url(B))
    server.always(B, status(404))
    with pytest.raises(DownloadError):
        from_mirrors(workspace, manifest, Said())
    assert_unfinished(workspace)
    server.files[valid] = parquet
    said = Said()
    report = from_mirrors(workspace, manifest, said)
    assert [output.path for output in report.ledger.outputs] == [train[5:], valid[5:]]
    assert len(server.requests(train)) == 1, "what has come is not fetched again"
    assert "train-baikeqa_zh.parquet: kept from an earlier run" in said.lines


def test_files_of_a_mirror_that_failed_do_not_stay(server: Server, workspace: Workspace) -> None:
    parquet = b"PAR1" + bytes(5000) + b"PAR1"
    train, valid = "/hub/train-baikeqa_zh.parquet", "/hub/valid-baikeqa_zh.parquet"
    server.files |= {train: parquet, valid: parquet}
    server.script(valid, cut(600), cut(0), cut(0))
    from_mirrors(workspace, mirrored((server.url(train), server.url(valid)), server.url(B)), Said())
    assert_whole(workspace)


def test_no_room_is_seen_before_the_first_byte(server: Server, workspace: Workspace) -> None:
    with pytest.raises(DiskError, match=r"baike2018qa with its documents needs 2250 TB on the disk") as caught:
        from_mirrors(workspace, mirrored(server.url(A), size=10**15), Said())
    assert "--workspace" in caught.value.hint
    assert server.log == []
    huge = Behaviour(headers={"Content-Length": str(10**15)})
    server.always(A, huge)
    with pytest.raises(DiskError, match=r"baike2018qa\.zip needs 1000 TB on the disk of"):
        from_mirrors(workspace, mirrored(server.url(A)), Said())
    assert_unfinished(workspace)
    assert not list(workspace.root.rglob("*.part"))


def test_it_says_first_what_it_will_do(server: Server, workspace: Workspace) -> None:
    said = Said()
    from_mirrors(workspace, mirrored(server.url(A), size=663_000_000), said)
    assert said.lines[0].startswith(
        "baike2018qa: baike2018qa.zip, 663 MB, from mirror 1; needs about 1.5 GB on disk "
        "(663 MB to download, 829 MB for the documents), "
    )


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
