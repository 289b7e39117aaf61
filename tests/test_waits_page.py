"""docs/scale.md names every copy, wait and mask of a step by file and line, and the lines are those of the code."""

import re
from pathlib import Path

import pytest
from build_waits import MASKS, PAGE, WAITING, Place, calls, step_files, undeclared, with_tables

PACKAGE = Path(__file__).resolve().parent.parent / "kdzoo"
NAMED = re.findall(r"`([\w/]+\.py):(\d+)`", PAGE.read_text())
WORDS = (
    *("send(", ".to(", ".cpu()", "tolist()", "torch.save("),
    *("where(", "masked_fill(", "masked_fill_(", "on_host is None", "@", "index_fill_(", "n_averaged", "fill_("),
)
"""what copies, waits, chooses by a mask, or stands in place of what would wait"""


def test_the_tables_are_those_of_the_code() -> None:
    assert PAGE.read_text() == with_tables(PAGE.read_text()), "run python docs/build_waits.py"


@pytest.mark.parametrize(("file", "line"), sorted(set(NAMED)))
def test_the_line_that_is_named_copies_waits_or_masks(file: str, line: str) -> None:
    text = (PACKAGE / file).read_text().splitlines()[int(line) - 1]
    assert any(word in text for word in WORDS), text


def test_no_call_of_a_step_that_could_wait_is_left_out() -> None:
    assert undeclared(step_files()) == []


@pytest.mark.parametrize(
    "line", ["loss.item()", "rows.tolist()", "send(rows, device)", "x.to(self.device)", "x.to(device=there)", "x.cpu()"]
)
def test_a_call_that_could_wait_is_found(line: str) -> None:
    assert list(calls(f"def act(x):\n    return {line}\n", WAITING)) == [2]


def test_other_calls_are_not() -> None:
    assert list(calls("x.to(torch.float32)\nx.sum()\nsend\n", WAITING)) == []
    assert list(calls("x.masked_fill(m, 0)\ntorch.where(m, x, 0)\nx[m]\n", MASKS)) == [1, 2]


def test_a_place_that_is_gone_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"kdzoo/data/copies\.py: no line has 'x\.item\(\)'"):
        _ = Place("data/copies.py", "x.item()").lines
