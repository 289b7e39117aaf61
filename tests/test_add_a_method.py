"""docs/add-a-method.md, followed to the letter: its files written, its commands run, its promises kept."""

import re
from pathlib import Path

import pytest
from pages import DOCS, Ran, page, run

PAGE = page("add-a-method.md")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ran]]:
    """An empty folder in which the page was followed from top to bottom, and how each command ended."""
    folder = tmp_path_factory.mktemp("newcomer")
    return folder, PAGE.follow(folder)


def ending(ran: list[Ran], start: str) -> Ran:
    return next(one for one in ran if one.command.startswith(start))


@pytest.mark.slow
def test_every_command_ends_well(followed):
    _, ran = followed
    assert len(ran) == 7
    for one in ran:
        assert one.status == 0, f"{one.command}\n{one.said}"


@pytest.mark.slow
def test_the_method_passes_every_check(followed):
    for name in ("lsh", "hint"):
        assert re.search(rf"{name}: \d+ checks, all passed", ending(followed[1], f"kdzoo check {name}.py").said)


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
    (tmp_path / "lsh.py").write_text(PAGE.files["lsh.py"].replace("needs=kdzoo.Need.EMBEDDING", "needs=kdzoo.Need.LOGITS"))
    said = run("kdzoo check lsh.py", tmp_path)
    promised = PAGE.text.split("<!-- what check says -->")[1].split("```text\n")[1].split("\n```")[0]
    assert said.status == 1
    assert promised in said.said


@pytest.mark.slow
def test_the_long_bench_is_one_that_kdzoo_would_run(tmp_path):
    (tmp_path / "lsh.py").write_text(PAGE.files["lsh.py"])
    (command,) = (code.strip() for code in PAGE.blocks("text") if code.startswith("kdzoo bench"))
    here = re.sub(r"--data \S+ --pairs \S+ --recipe \S+", "--data digits --pairs digits --recipe digits --dry-run", command)
    said = run(here, tmp_path)
    assert said.status == 0, said.said
    assert here != command


def test_the_page_names_what_exists():
    root = DOCS.parent
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", PAGE.text):
        assert (DOCS / target).exists(), target
    for path in re.findall(r"`((?:kdzoo|tests|benchmarks)/[\w/.]+)`", PAGE.text):
        assert (root / path.replace("NAME", "hinton")).exists(), path
    for anchor, text in (("what-a-method-can-ask-for", "docs/architecture.md"), ("your-own-loss", "README.md")):
        assert f"## {anchor.replace('-', ' ').capitalize()}" in (root / text).read_text()


def test_the_example_is_not_in_the_zoo():
    from kdzoo.contract.methods import REGISTRY

    assert "lsh" not in REGISTRY.names()
