"""Shares of pieces: what `--shard` takes, and that the shares have each piece once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.pipeline.workspace.share import Share


@given(count=st.integers(1, 30), pieces=st.integers(0, 60))
def test_the_shares_have_each_piece_once(count: int, pieces: int) -> None:
    owners = [[i for i in range(1, count + 1) if Share(i, count).has(number)] for number in range(pieces)]
    assert all(len(found) == 1 for found in owners)
    sizes = [sum(Share(i, count).has(number) for number in range(pieces)) for i in range(1, count + 1)]
    assert max(sizes) - min(sizes) <= 1


@given(count=st.integers(1, 10**6), data=st.data())
def test_a_share_is_read_as_it_is_written(count: int, data: st.DataObject) -> None:
    share = Share(data.draw(st.integers(1, count)), count)
    assert Share.parse(str(share)) == share


@pytest.mark.parametrize(
    "text", ["", "3", "/", "3/", "/16", "a/b", "3/16/2", "-1/4", "1.5/4", " 1/4", "1/4 ", "１/４", "1" * 5000 + "/2"]
)
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be I/N"):
        Share.parse(text)


def test_a_share_out_of_range_says_what_counts() -> None:
    with pytest.raises(ValueError, match="give I \\+ 1 for an array that counts from 0"):
        Share.parse("0/16")
    with pytest.raises(ValueError, match="from 1 to 16, not 17"):
        Share.parse("17/16")
    with pytest.raises(ValueError, match="at least 1 share"):
        Share.parse("1/0")
