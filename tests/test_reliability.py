"""Every test that docs/reliability.md names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", (ROOT / "docs/reliability.md").read_text())))


def test_the_page_names_tests() -> None:
    rows = [line for line in (ROOT / "docs/reliability.md").read_text().splitlines() if line.startswith("| ") and "---" not in line]
    assert len(NAMED) > 60
    assert all("`tests/" in row for row in rows if not row.startswith("| fault"))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_is_there(file: str, name: str) -> None:
    assert not name or f"def {name}(" in (ROOT / file).read_text()
