"""Editions: what is frozen, what fits, and what a table says of it."""

import re
from pathlib import Path

import pytest
from edited import edit
from test_leaderboard import objective, write

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.runs.spec import ENGINE
from kdzoo.suite.plan import edition as editions
from kdzoo.suite.plan.edition import Edition, misfits_here, read_edition, recipe_digest
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.signatures import Signature, signature_line, signatures
from kdzoo.suite.plan.starts import Start, keep_start
from kdzoo.suite.plan.yaml_files import shipped_files
from kdzoo.suite.report import editions as of_tables
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.editions import misfits
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.markdown import as_markdown

RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
NAMES = sorted(shipped_files("editions"))


@pytest.mark.parametrize("name", ["digits", "zoo"])
def test_the_committed_benches_of_the_edition_fit_it(name):
    assert misfits("2026.12", read_bench(RESULTS / name).records) == {}


@pytest.mark.parametrize("name", NAMES)
def test_an_edition_has_every_pair_with_its_data_and_methods_of_the_zoo(name):
    edition = read_edition(name)
    assert {table.data for table in edition.tables} >= {"digits", "cifar10_16"}
    assert set(edition.methods) <= set(REGISTRY.own_names())
    assert edition.packages.keys() == {"torch", "timm"}


def test_runs_by_another_recipe_or_of_another_pair_are_of_no_edition():
    """The zoo on the digits trains for fewer epochs than the edition's digits, and has two pairs of its own."""
    reasons = misfits("2026.12", read_bench(RESULTS / "zoo_digits").records)
    assert all(
        re.search(r"recipe \w+, not \w+ \(digits, digits\)|pair \S+: not in this edition", "; ".join(text)) for text in reasons.values()
    )
    assert len(reasons) == len(read_bench(RESULTS / "zoo_digits").records)


def frozen(run, **changes) -> Edition:
    """An edition of which a run is one."""
    table = {
        "pairs": ["resnet20/resnet8"],
        "data": run.data.name,
        "fingerprint": run.data.fingerprint,
        "recipe": "smoke",
        "digest": recipe_digest(run.recipe),
        "teachers": ["none-0123456789ab"],
    }
    content = {"engine": run.engine, "packages": {"torch": "2", "timm": "1"}, "methods": {"hinton": "1"}}
    return Edition.model_validate({**content, "tables": [{**table, **changes.pop("table", {})}], **changes})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, []),
        ({"engine": ENGINE + 1}, [f"engine {ENGINE}, not {ENGINE + 1}"]),
        ({"methods": {"hinton": "2"}}, ["method hinton: version 1, not 2"]),
        ({"methods": {}}, ["method hinton: not in this edition"]),
        ({"table": {"pairs": ["a/b"]}}, ["pair resnet20/resnet8: not in this edition, which has a/b"]),
        ({"table": {"fingerprint": "beef"}}, ["data f00d, not beef (cifar10, smoke)"]),
        ({"table": {"limit": 10}}, ["limit None, not 10 (cifar10, smoke)"]),
        ({"table": {"teachers": ["none-x"]}}, ["teacher none-0123456789ab, not none-x"]),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, changes, why):
    run = write(tmp_path, objective("hinton"), 0, val=0.8, test=0.9)
    assert list(frozen(run, **changes).misfits(run, {"pair": "resnet20/resnet8"})) == why


def test_a_table_names_its_edition_only_if_every_run_fits(tmp_path, monkeypatch):
    runs = [write(tmp_path, objective(method), seed, val=0.8, test=0.9) for method in ("none", "hinton") for seed in (0, 1)]
    keep_start(tmp_path, Start.of("kdzoo bench", bench_config({"edition": "test"}, None), [run.id for run in runs]))
    monkeypatch.setattr(of_tables, "read_edition", lambda name: frozen(runs[-1]))

    def text() -> str:
        bench = read_bench(tmp_path)
        return as_markdown(bench, leaderboard_frame(bench))

    assert "Edition test: every run fits it." in text()
    file = tmp_path / "runs" / runs[-1].id / "result.json"
    edit(file, lambda result: result["environment"].update(torch="3.1+cpu"))
    assert f"Not of edition test: 1 run does not fit it, such as {runs[-1].id}: torch 3.1, not 2." in text()


def test_a_bench_that_does_not_fit_is_refused_before_any_training(kdzoo):
    said = kdzoo("bench", "--edition", "2026.12", "--epochs", 1, "--dry-run")
    assert said.status == 2
    assert "edition 2026.12: recipe" in said.err
    assert "did you mean '2026.12'" in kdzoo("bench", "--edition", "2026.11", "--dry-run").err


def test_planned_runs_fit_where_the_packages_do(tmp_path, monkeypatch):
    run = write(tmp_path, objective("hinton"), 0, val=0.8, test=0.9)
    monkeypatch.setattr(editions, "read_edition", lambda name: frozen(run, packages={"torch": "0.1"}))
    (only,) = misfits_here("test", [(run, {"pair": "resnet20/resnet8"})])
    assert only.startswith("edition test: torch 2.")
    assert only.endswith(", not 0.1")


def test_a_signature_is_of_one_version_and_the_committed_ones_name_methods_of_the_zoo(monkeypatch):
    assert set(signatures()) <= set(REGISTRY.own_names())
    signed = {"crd": Signature(version="1", by="An Author", link="https://example.org/1")}
    monkeypatch.setattr("kdzoo.suite.plan.signatures.signatures", lambda: signed)
    assert signature_line("crd", "1") == "crd: signed as the method that was meant by An Author (https://example.org/1)"
    assert signature_line("crd", "2") == "crd: version 1 was signed by An Author, version 2 is not (https://example.org/1)"
    assert signature_line("at", "1") is None
    with pytest.raises(InputError, match="unknown"):
        read_edition("1999.01")
