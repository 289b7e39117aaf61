"""Sizes and times in a user's words."""

import pytest

from kdzoo.sizes import seconds_of, size_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("90min", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), ("2H 5m", 7500), ("1h1m1s", 3661)],
)
def test_hours_minutes_and_seconds_are_read(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "soon", "2", "h", "-1h", "30m1h", "1h30", "1e3s"])
def test_what_is_no_time_is_none(text):
    assert seconds_of(text) is None


@pytest.mark.parametrize(("text", "size"), [("500MB", 500 * 2**20), ("4GiB", 4 * 2**30), ("0", 0), ("1.5k", 1536), ("4 apples", None)])
def test_sizes_are_powers_of_1024(text, size):
    assert size_of(text) == size
