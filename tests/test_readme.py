"""The README's own lines, run as they stand there."""

import csv
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pages import run
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str) -> str:
    found = [code for name, code in re.findall(r"```(\w+)\n(.*?)```", README, re.S) if name == language and containing in code]
    assert len(found) == 1, f"expected one {language} block with {containing!r}"
    return found[0]


def test_a_users_own_loss_takes_less_than_15_lines():
    lines = block("python", "@kdzoo.register").strip().splitlines()
    assert len(lines) < 15
    assert lines[0] == "# my_loss.py"


@pytest.mark.slow
def test_a_users_own_loss_is_checked_and_ranked(tmp_path):
    (tmp_path / "my_loss.py").write_text(block("python", "@kdzoo.register"))
    check, bench = block("bash", "kdzoo check my_loss.py").strip().splitlines()
    checked = run(check, tmp_path)
    assert checked.status == 0, checked.said
    ranked = run(bench + " --quick", tmp_path)
    assert ranked.status == 0, ranked.said
    board = next((tmp_path / "results").glob("*/leaderboard.csv")).read_text()
    assert "my_loss" in board
    assert "hinton" in board


def test_every_command_of_the_table_exists():
    table = README.split("## Commands")[1]
    named = set(re.findall(r"`(?:kdzoo )?(\w+)`", table.split("Every one")[0]))
    said = subprocess.run([sys.executable, "-m", "kdzoo", "--help"], capture_output=True, text=True, check=True).stdout
    missing = [name for name in sorted(named) if not re.search(rf"^.\s+{name}\s", said, re.M)]
    assert named
    assert missing == []


def test_the_counts_of_methods_are_those_of_the_registry(kdzoo):
    from kdzoo.contract.methods import REGISTRY

    own = set(REGISTRY.own_names())
    rows = {row["method"] for row in csv.DictReader((ROOT / "results" / "zoo" / "leaderboard.csv").open())}
    assert README.count(f"zoo of {len(own)} knowledge-distillation methods") == 1
    assert f"{len(rows & own)} of the {len(own)} methods" in README
    cards = {name: REGISTRY.get(name).card for name in own - rows}
    assert sum(card.of_texts_alone for card in cards.values()) == 2
    assert len(cards) == 2 + 4 + 1 + 10
    assert kdzoo("methods").out.startswith(f"{len(own)} methods, ")
    assert kdzoo("methods", "--family", "online").out.startswith(
        f"{sum(REGISTRY.get(name).card.family == 'online' for name in own)} of {len(own)} "
    )
    assert f"({len(own)} in all)" in kdzoo("bench", "--methods", "hintn").err
    assert f"All {len(own)} methods" in (ROOT / "docs" / "methods" / "README.md").read_text()


def test_how_a_student_starts_is_said_where_a_reader_needs_it(kdzoo, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    distil, own_pair = README.partition("## A smaller model")[2].partition("## Your own pair")[::2]
    assert "`--student NAME:random` starts from scratch" in distil
    assert "`NAME:random` and `NAME:pretrained` say which" in own_pair
    for verb in ("distill", "bench"):
        assert "NAME:random" in kdzoo(verb, "--help").out, verb


def test_the_readmes_python_names_exist():
    import kdzoo

    for name in set(re.findall(r"kdzoo\.(\w+)\(", block("python", "kdzoo.bench("))):
        assert callable(getattr(kdzoo, name)), name
    assert kdzoo.functional.hinton is not None


def test_the_picture_of_the_terminal_shows_what_its_command_prints(kdzoo, monkeypatch):
    """Word by word; blanks between words are positions in a picture."""
    lines: dict[str | None, str] = {}
    for text in ElementTree.parse(ROOT / "docs" / "terminal.svg").iter("{http://www.w3.org/2000/svg}text"):
        row = text.get("clip-path")
        lines[row] = lines.get(row, "") + (text.text or "")
    _title, command, *shown = lines.values()
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as docs/draw_terminal.py makes it take the pipe for a terminal
    printed = Text.from_ansi(kdzoo(*command.replace("\xa0", " ").removeprefix("$ kdzoo ").split()).out).plain
    assert [words for line in shown if (words := "".join(line.split()))] == [
        words for line in printed.splitlines() if (words := "".join(line.split()))
    ]
