"""Each way in which a connection fails, against a real server that fails like that: what comes of it, what is said."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus.pipeline.errors import DownloadError
from corpus.pipeline.workspace.layout import Workspace
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
    from_url,
    mirrored,
)
from tests.support.server import GOOD, Behaviour, Server, cut, redirect, status


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
