"""Each way in which a network fails, against a real server that fails like that: what comes of it, and what is said."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline.download.retry import RetryPolicy
from corpus.pipeline.download.stage import DownloadConfig, run
from corpus.pipeline.errors import ChecksumError, CorpusError, DiskError, DownloadError
from corpus.pipeline.progress import Progress
from corpus.pipeline.workspace.layout import Workspace
from corpus.pipeline.workspace.ledger import Report
from tests.support.archives import (
    DATA,
    FAST,
    NAME,
    OTHER,
    A,
    B,
    Said,
    archive,
    assert_unfinished,
    assert_whole,
    from_mirrors,
    mirrored,
)
from tests.support.server import GOOD, Behaviour, Server, cut, page, redirect, status


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({f"/a/{NAME}": DATA, f"/b/{NAME}": DATA}) as running:
        yield running


def from_url(workspace: Workspace, url: str, said: Progress, retry: RetryPolicy = FAST) -> Report:
    return run(DownloadConfig(dataset="baike2018qa", source=url), workspace, progress=said, retry=retry)


def test_cut_in_the_middle_goes_on_where_it_was(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.script(A, cut(100_000), cut(50_000))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert server.ranges(A) == ["", "bytes=100000-", "bytes=150000-"]
    assert "the connection was cut" in said.text
    assert f"{NAME}: resuming at 100 kB of 300 kB" in said.text
    assert said.bars[-1] == [len(DATA), len(DATA)]
    assert server.sent_bytes == len(DATA), "not a byte came twice"


def test_cut_again_and_again_at_the_same_place_leads_to_the_next_mirror(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, Behaviour(cut_at=90_000, has_ranges=False))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert len(server.requests(A)) == 1 + FAST.attempts - 1
    assert f"mirror 1: {server.url(A)}: the connection was cut" in said.text
    assert "given up after 3 attempts; next: mirror 2" in said.text


def test_cuts_with_gain_between_them_are_not_counted(server: Server, workspace: Workspace) -> None:
    data = archive(3, 1_000_000)
    server.files[A] = data
    server.script(A, *[cut(1 << 16) for _ in range(12)])
    from_mirrors(workspace, mirrored(server.url(A)), Said())
    assert_whole(workspace, data)
    assert len(server.requests(A)) == 13


def test_rerun_after_a_given_up_download_goes_on(server: Server, workspace: Workspace) -> None:
    server.always(A, cut(0))
    server.script(A, cut(120_000))
    with pytest.raises(DownloadError) as caught:
        from_url(workspace, server.url("/a"), Said())
    assert "Run the same command again later" in caught.value.hint
    assert_unfinished(workspace)
    server.always(A, GOOD)
    from_url(workspace, server.url("/a"), Said())
    assert_whole(workspace)
    assert server.ranges(A)[-1] == "bytes=120000-"


def test_slow_drip_is_cut_and_leads_to_the_next_mirror(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, Behaviour(piece_bytes=50, pause_s=0.02))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert f"{server.url(A)}: too slow, " in said.text
    assert "next: mirror 2" in said.text


def test_silence_is_cut(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.script(A, Behaviour(hang_s=0.8), Behaviour(piece_bytes=100_000, pause_s=0.8))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert said.text.count("timed out waiting for data") == 2


@pytest.mark.parametrize(("code", "words"), [(404, "404 Not Found"), (403, "403 Forbidden"), (410, "410 Gone")])
def test_not_there_leads_to_the_next_mirror_at_once(
    server: Server, workspace: Workspace, code: int, words: str
) -> None:
    said = Said()
    server.always(A, status(code))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert len(server.requests(A)) == 1
    assert f"baike2018qa: mirror 1: {server.url(A)}: {words}; next: mirror 2" in said.lines


def test_too_many_requests_waits_as_asked(server: Server, workspace: Workspace) -> None:
    said = Said()
    soon = formatdate(usegmt=True)
    server.script(A, status(429, Retry_After="1"), status(503, Retry_After=soon))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert f"{server.url(A)}: 429 Too Many Requests; retrying in 1.0 s" in said.lines
    assert f"{server.url(A)}: 503 Service Unavailable; retrying in 0.0 s" in said.lines


def test_too_many_requests_with_too_long_a_wait_leads_to_the_next_mirror(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, status(429, Retry_After="3600"))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert "429 Too Many Requests, Retry-After 3,600 s; given up" in said.text


def test_500_then_fine(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.script(A, status(500), status(502))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert f"{server.url(A)}: 500 Internal Server Error; retrying" in said.text


def test_a_length_that_is_too_large(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, Behaviour(length_off_by=1000))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert "the connection was cut" in said.text


def test_a_length_that_is_too_small(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, Behaviour(length_off_by=-1000))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert f"received {len(DATA) - 1000:,} bytes, but its end is missing; deleted" in said.text


def test_no_length_at_all(server: Server, workspace: Workspace) -> None:
    server.always(A, Behaviour(has_length=False))
    from_mirrors(workspace, mirrored(server.url(A)), Said())
    assert_whole(workspace)
    server.script(B, Behaviour(has_length=False, cut_at=200_000))
    with pytest.raises(DownloadError, match="received 200,000 bytes, but its end is missing"):
        from_url(workspace, server.url(B), Said())


def test_no_range_support_starts_over_and_says_so(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, Behaviour(has_ranges=False))
    server.script(A, Behaviour(cut_at=100_000, has_ranges=False))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert f"{NAME}: the server does not support Range requests; starting over" in said.lines


def test_a_server_without_etag_and_date_starts_over_and_says_so(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, Behaviour(has_stamp=False))
    server.script(A, Behaviour(cut_at=100_000, has_stamp=False))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert server.ranges(A) == ["", ""]
    assert "the server gave neither ETag nor Last-Modified" in said.text


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_file_that_changes_between_two_parts_starts_over(
    server: Server, workspace: Workspace, ignores_if_range: bool
) -> None:
    said = Said()
    server.script(A, cut(100_000), Behaviour(cut_at=0), cut(0))
    with pytest.raises(DownloadError):
        from_url(workspace, server.url("/a"), Said())
    server.files[A] = OTHER
    server.always(A, Behaviour(ignores_if_range=ignores_if_range))
    from_url(workspace, server.url("/a"), said)
    assert_whole(workspace, OTHER)
    assert "starting over" in said.text


def test_a_part_that_begins_elsewhere_starts_over(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.script(A, cut(100_000), Behaviour(range_off_by=-7))
    from_mirrors(workspace, mirrored(server.url(A)), said)
    assert_whole(workspace)
    assert server.ranges(A) == ["", "bytes=100000-", ""]
    assert "is not of the same version; starting over" in said.text


def test_a_redirect_loop_leads_to_the_next_mirror(server: Server, workspace: Workspace) -> None:
    said = Said()
    server.always(A, redirect("/loop"))
    server.always("/loop", redirect(A))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert f"mirror 1: {server.url(A)}: more than 4 redirects" in said.text


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/a.zip", "gopher://127.0.0.1:1/"])
def test_a_redirect_to_another_scheme_is_not_followed(server: Server, workspace: Workspace, to: str) -> None:
    said = Said()
    server.always(A, redirect(to))
    from_mirrors(workspace, mirrored(server.url(A), server.url(B)), said)
    assert_whole(workspace)
    assert f"{server.url(A)} (redirected to {to.partition(':')[0]}://" in said.text
    assert "only http and https are followed; next: mirror 2" in said.text


def test_redirects_are_followed_and_keep_the_range(server: Server, workspace: Workspace) -> None:
    server.always(A, redirect(f"{server.url(B)}?signature=hush"))
    server.script(f"{B}?signature=hush", cut(100_000), status(404))
    with pytest.raises(DownloadError) as caught:
        from_url(workspace, server.url(A), Said())
    assert caught.value.message == (f"{server.url(A)} (redirected to {server.url(B)}?signature=…): 404 Not Found")
    from_url(workspace, server.url(A), Said())
    assert_whole(workspace)
    assert server.ranges(f"{B}?signature=hush") == ["", "bytes=100000-", "bytes=100000-"]


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


def test_secrets_of_a_url_are_nowhere(server: Server, workspace: Workspace) -> None:
    said = Said()
    url = server.url(A).replace("://", "://me:hush@")
    server.script(A, status(500), cut(1000))
    from_url(workspace, url, said)
    assert_whole(workspace)
    assert server.requests(A)[0].headers["authorization"].startswith("Basic ")
    written = b"".join(path.read_bytes() for path in workspace.root.rglob("*.json"))
    assert b"hush" not in written
    assert "hush" not in said.text
    server.always(f"{A}?again=hush", status(401))
    with pytest.raises(CorpusError) as caught:
        from_url(workspace, url + "?again=hush", Said())
    assert "hush" not in f"{caught.value.message}{caught.value.hint}"


def test_the_hub_token_goes_to_the_hub_alone_and_only_over_https(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("HF_TOKEN", "hf_hush")
    manifest = mirrored("{hub}/data/baike2018qa.zip")
    hub_path = "/data/baike2018qa.zip"
    with Server({A: DATA, hub_path: DATA}) as store, Server({hub_path: DATA}, certificate=certificate) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url("/"))
        hub.always(hub_path, redirect(store.url(A)))
        said = Said()
        from_mirrors(workspace, manifest, said)
        assert_whole(workspace)
        assert hub.requests(hub_path)[0].headers["authorization"] == "Bearer hf_hush"
        assert "authorization" not in store.requests(A)[0].headers
        monkeypatch.setenv("HF_ENDPOINT", store.url())
        from_mirrors(Workspace(tmp_path / "second"), manifest, said)
        assert "authorization" not in store.requests(hub_path)[0].headers
        written = b"".join(path.read_bytes() for path in workspace.root.rglob("*.json"))
        assert b"hf_hush" not in written
        assert "hf_hush" not in said.text


def make_certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 in one file."""
    key, certificate = folder / "key.pem", folder / "both.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    try:
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl here to make a certificate with")
    certificate.write_bytes(key.read_bytes() + certificate.read_bytes())
    return certificate


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


misbehaviours = st.lists(
    st.one_of(
        st.builds(
            Behaviour,
            cut_at=st.integers(0, 60_000),
            has_ranges=st.booleans(),
            has_stamp=st.booleans(),
            has_length=st.just(True),
            range_off_by=st.sampled_from([0, 0, 0, -3]),
        ),
        st.sampled_from([status(500), status(429, Retry_After="0"), status(408)]),
    ),
    max_size=5,
)
SMALL = archive(5, 60_000)
STEADY = dataclasses.replace(FAST, attempts=20, backoff_s=0.0)


@pytest.fixture(scope="module")
def steady_server() -> Iterator[Server]:
    with Server({A: SMALL}) as running:
        yield running


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=misbehaviours)
def test_whatever_happens_on_the_way_the_file_is_the_same(
    steady_server: Server, tmp_path_factory: pytest.TempPathFactory, script: list[Behaviour]
) -> None:
    workspace = Workspace(tmp_path_factory.mktemp("case"))
    steady_server.forget()
    steady_server.script(A, *script)
    from_url(workspace, steady_server.url(A), Said(), STEADY)
    assert_whole(workspace, SMALL)
