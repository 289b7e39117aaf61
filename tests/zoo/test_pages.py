"""The methods' pages in the docs are those that their declarations make, and say what a reader looks for."""

import re
from pathlib import Path

import pytest
from build_pages import costs_of, method_page, pages, papers_text, write

from kdzoo.contract.methods import REGISTRY

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "methods"
COSTS = {
    "batch": 64,
    "environment": {"device": "cpu", "threads": 1},
    "results": [
        {
            "pair": "big/small",
            "step_milliseconds": 1000.0,
            "rows": [
                {
                    "method": "hinton",
                    "milliseconds": 1.25,
                    "share": 0.0125,
                    "work": 0.5,
                    "peak_bytes": 3 * 2**20,
                    "module_bytes": 0,
                    "extra_parameters": 1234,
                }
            ],
            "refused": {"at": "reasons"},
        }
    ],
}


@pytest.mark.release
def test_the_committed_pages_are_those_that_are_generated():
    made = pages(costs_of(ROOT))
    there = {file.name: file.read_text() for file in FOLDER.glob("*.md")}
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    stale += ["papers.md"] if (ROOT / "docs" / "papers.md").read_text() != papers_text() else []
    assert stale == [], "run python docs/build_pages.py --only pages"


def test_every_paper_of_a_method_is_in_the_index_with_what_is_computed_and_where_its_weights_stand():
    index = papers_text()
    for name in REGISTRY.own_names():
        source = REGISTRY.get(name).card.source
        section = index.split(f"## {source.title} ({source.year})\n")[1].split("\n## ")[0]
        assert f"<{source.url}>" in section
        (line,) = [line for line in section.splitlines() if line.startswith(f"- [{name}](methods/{name}.md)")]
        assert source.equation in line
        assert source.weights in line


@pytest.mark.parametrize("name", REGISTRY.own_names())
def test_a_page_says_paper_loss_weights_and_needs(name):
    card, page = REGISTRY.get(name).card, method_page(name)
    assert card.source is not None, "declare source=Source(...)"
    assert f"[{card.source.title}]({card.source.url}), {card.source.year}" in page
    assert card.source.weights in page
    assert card.source.weights, "say where the weight comes from: Source(weights=...)"
    assert "| loss, D | `" in page, "declare formula="
    assert "{" not in page.split("| loss, D |")[1].splitlines()[0], "the formula names a field that the method does not have"
    assert all(sentence in page for sentence in card.disagreements)
    for what in card.needs.student:
        assert f"`{what.name}`" in page.split("| reads of the student |")[1].splitlines()[0]


@pytest.mark.parametrize("name", REGISTRY.own_names())
def test_every_hyperparameter_is_described(name):
    page, fields = method_page(name), REGISTRY.get(name).model_fields
    assert [field for field, info in fields.items() if not info.description] == []
    for field, info in fields.items():
        assert re.search(rf"^\| `{field}` \| .*\| {re.escape(info.description)} \|$", page, re.M)


@pytest.mark.parametrize("name", REGISTRY.own_names())
def test_a_page_speaks_of_kdzoos_own_family_and_docstring(name):
    cls = REGISTRY.get(name)
    assert cls.card.family != "own", "declare family="
    assert cls.card.summary in method_page(name)
    assert method_page(name).splitlines()[2] == f"# {name}"


def test_a_page_of_two_stages_says_what_each_minimises():
    page = method_page("fitnet_two_stage")
    assert "| trains first | [fitnet_two_stage](fitnet_two_stage.md) alone for 0.125 of the recipe's epochs, besides them |" in page
    assert "| as published | L = 0.1 CE + 0.9 [hinton](hinton.md)" in page


def test_published_coefficients_and_what_alpha_weighs():
    assert "| as published | L = CE + 1000 D: CE + 1000 L as in the authors' code" in method_page("at")
    assert "| with alpha a | L = (1 - a) CE + 1000 a D |" in method_page("at")
    assert "| as published | L = D: L alone, without cross-entropy" in method_page("simkd")


def test_the_words_of_a_need_are_those_of_its_declaration():
    assert "`EMBEDDING`: the pooled vector before the classifier, (B, D)" in method_page("simkd")
    assert "| reads of the teacher | nothing |" in method_page("tfkd")


def test_costs_are_shown_where_they_were_measured():
    assert "What it costs" not in method_page("hinton")
    assert "What it costs" not in method_page("at", COSTS)
    assert "| big/small | 1.2 | 1.2 % | 50.0 % | 3.0 MiB | 0.0 MiB | 1,234 |" in method_page("hinton", COSTS)
    assert "for a batch of 64, on cpu, threads: 1;" in method_page("hinton", COSTS)


def test_every_link_between_pages_leads_somewhere():
    for file in [*FOLDER.glob("*.md"), ROOT / "docs" / "method-pairs.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", file.read_text()):
            assert (file.parent / target).is_file(), f"{file.name}: {target}"


def test_writing_removes_the_page_of_a_method_that_is_gone(tmp_path):
    (tmp_path / "docs/methods").mkdir(parents=True)
    (tmp_path / "docs/methods/gone.md").write_text("old")
    write(tmp_path, only="pages")
    written = {file.name for file in (tmp_path / "docs/methods").iterdir()}
    assert written == {"README.md", *(f"{name}.md" for name in REGISTRY.own_names())}
    assert not (tmp_path / "docs/method-pairs.md").exists()
