"""docs/add-a-method.md, followed to the letter: its files written, its commands run, its promises kept."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "add-a-method.md"
TEXT = PAGE.read_text()
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Ran:
    command: str
    status: int
    said: str


def blocks(language: str) -> list[str]:
    return [code for name, code in FENCE.findall(TEXT) if name == language]


def files() -> dict[str, str]:
    """The page's Python files by the names in their first lines."""
    return {code.partition("\n")[0].removeprefix("# "): code for code in blocks("python")}


def run(command: str, folder: Path) -> Ran:
    words = shlex.split(command)
    started = {"kdzoo": [sys.executable, "-m", "kdzoo.cli"], "python": [sys.executable]}[words[0]]
    environment = {**os.environ, "KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled", "COLUMNS": "200"}
    done = subprocess.run([*started, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return Ran(command, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ran]]:
    """An empty folder in which the page was followed from top to bottom, and how each command ended."""
    folder, ran = tmp_path_factory.mktemp("newcomer"), []
    for language, code in FENCE.findall(TEXT):
        if language == "python":
            (folder / code.partition("\n")[0].removeprefix("# ")).write_text(code)
        elif language == "bash":
            ran += [run(line, folder) for line in code.strip().splitlines()]
    return folder, ran


def ending(ran: list[Ran], start: str) -> Ran:
    return next(one for one in ran if one.command.startswith(start))


@pytest.mark.slow
def test_every_command_ends_well(followed):
    _, ran = followed
    assert len(ran) == 6
    for one in ran:
        assert one.status == 0, f"{one.command}\n{one.said}"


@pytest.mark.slow
def test_the_method_passes_every_check(followed):
    assert re.search(r"lsh: \d+ checks, all passed", ending(followed[1], "kdzoo check").said)


@pytest.mark.slow
def test_the_oracle_is_run(followed):
    assert "2 passed" in ending(followed[1], "python -m pytest").said


@pytest.mark.slow
def test_explain_shows_the_formula_with_its_numbers(followed):
    plain, weighed = (one.said for one in followed[1] if one.command.startswith("kdzoo explain"))
    assert "L = 1 * CE + 1 * [mean BCE(sigmoid(w f_s), w f_t > 0) over 512 planes w]" in plain
    assert "L = 0.5 * CE + 0.5 * [mean BCE(sigmoid(w f_s), w f_t > 0) over 128 planes w]" in weighed


@pytest.mark.slow
def test_the_method_stands_on_the_leaderboard_beside_the_controls(followed):
    folder, ran = followed
    board = (folder / "results" / "digits" / "leaderboard.csv").read_text()
    assert {"lsh", "hinton", "none"} <= set(re.findall(r"\b(lsh|hinton|none)\b", board))
    assert "lsh" in ending(ran, "kdzoo leaderboard").said


@pytest.mark.slow
def test_check_finds_the_fault_that_the_page_plants(tmp_path):
    (tmp_path / "lsh.py").write_text(files()["lsh.py"].replace("needs=kdzoo.Need.EMBEDDING", "needs=kdzoo.Need.LOGITS"))
    said = run("kdzoo check lsh.py", tmp_path)
    promised = TEXT.split("<!-- what check says -->")[1].split("```text\n")[1].split("\n```")[0]
    assert said.status == 1
    assert promised in said.said


@pytest.mark.slow
def test_the_long_bench_is_one_that_kdzoo_would_run(tmp_path):
    (tmp_path / "lsh.py").write_text(files()["lsh.py"])
    (command,) = (code.strip() for code in blocks("text") if code.startswith("kdzoo bench"))
    here = re.sub(r"--data \S+ --pairs \S+ --recipe \S+", "--data digits --pairs digits --recipe digits --dry-run", command)
    said = run(here, tmp_path)
    assert said.status == 0, said.said
    assert here != command


def test_the_page_names_what_exists():
    root = PAGE.parent.parent
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target
    for path in re.findall(r"`((?:kdzoo|tests|benchmarks)/[\w/.]+)`", TEXT):
        assert (root / path.replace("NAME", "hinton")).exists(), path
    for anchor, text in (("what-a-method-can-ask-for", "docs/architecture.md"), ("your-own-loss", "README.md")):
        assert f"## {anchor.replace('-', ' ').capitalize()}" in (root / text).read_text()


def test_the_example_is_not_in_the_zoo():
    from kdzoo.method import REGISTRY

    assert "lsh" not in REGISTRY.names()
