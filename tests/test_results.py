"""The committed results: their tables are what their run folders say, byte for byte."""

import csv
import re
import shutil
from pathlib import Path

import pytest
from build_claims import PAGE, with_claims

from kdzoo.contract.methods import REGISTRY
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.blocks import CONTROLS
from kdzoo.suite.report.table_files import write_tables
from kdzoo.suite.study.evidence import write_evidence
from kdzoo.suite.study.study_files import read_study, study_file

RESULTS = Path(__file__).resolve().parent.parent / "results"
BENCHES = sorted(path.parent.name for path in RESULTS.glob("*/leaderboard.csv"))
STUDIES = sorted(path.parent.name for path in RESULTS.glob("papers/*/results.csv"))
TABLES = ("runs.csv", "leaderboard.csv", "leaderboard.md")


def files_with_places_of_a_machine(folder: Path) -> list[str]:
    """The files below a folder of results that name a folder of the machine they were made on."""
    files = [file for file in folder.rglob("*.*") if file.suffix in {".json", ".jsonl", ".csv", ".md", ".txt"}]
    assert files
    return [str(file) for file in files if any(place in file.read_text() for place in ("/tmp", "/home", "/root", "/mnt"))]


def test_the_default_bench_and_the_real_ones_are_there():
    assert {"digits", "zoo_digits"} <= set(BENCHES)


@pytest.mark.release
def test_every_method_has_a_row_on_the_digits_leaderboard_but_one_that_is_anothers_first_stage():
    rows = csv.DictReader((RESULTS / "zoo_digits" / "leaderboard.csv").open())
    assert set(REGISTRY.names_for_images()) - {row["method"] for row in rows} == {"ft_paraphraser"}


@pytest.mark.parametrize("name", BENCHES)
def test_tables_are_rebuilt_byte_for_byte_from_the_run_folders(name, tmp_path):
    shutil.copytree(RESULTS / name, tmp_path / name, ignore=shutil.ignore_patterns(*TABLES))
    write_tables(tmp_path / name)
    for table in TABLES:
        assert (tmp_path / name / table).read_bytes() == (RESULTS / name / table).read_bytes(), f"{name}/{table}"


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_a_study_is_rebuilt_byte_for_byte_from_its_runs_and_steps(name, tmp_path):
    folder = shutil.copytree(RESULTS / "papers" / name, tmp_path / name)
    tables = [folder / "README.md", *folder.glob("*.csv")]
    for path in tables:
        path.unlink()
    write_evidence(read_study(study_file(name)), name, folder)
    for path in tables:
        assert path.read_bytes() == (RESULTS / "papers" / name / path.name).read_bytes(), f"{name}/{path.name}"


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_a_study_gives_the_epochs_that_its_students_were_trained_for(name):
    """Each has measured as many epochs in its metrics."""
    folder = RESULTS / "papers" / name
    told = dict(re.findall(r"^- `([^`]+)/`: .*?(\d+) epochs? a run", (folder / "README.md").read_text(), re.MULTILINE))
    stages = {place.parent.name for place in folder.glob("*/runs")}
    assert stages
    for stage in stages:
        files = list((folder / stage / "runs").glob("*/metrics.jsonl"))
        assert files
        assert {len(file.read_text().splitlines()) for file in files} == {int(told[stage])}, stage


def test_the_claims_on_the_evidence_page_are_what_the_committed_runs_say():
    assert PAGE.read_text() == with_claims(PAGE.read_text()), "run python docs/build_claims.py"


@pytest.mark.parametrize("name", STUDIES)
def test_no_file_of_a_study_names_a_place_of_the_machine_it_was_made_on(name):
    assert files_with_places_of_a_machine(RESULTS / "papers" / name) == []


@pytest.mark.parametrize("name", BENCHES)
@pytest.mark.parametrize("family", ["", "_all"])
@pytest.mark.parametrize("control", CONTROLS)
def test_no_interval_contradicts_its_p_value_and_no_collapsed_row_has_either(name, control, family):
    tested = 0
    rows = list(csv.DictReader((RESULTS / name / "leaderboard.csv").open()))
    for row in rows:
        low, high, p = (row[column] for column in (f"vs_{control}{family}_low", f"vs_{control}{family}_high", f"p_vs_{control}{family}"))
        if row["collapsed"] or row["method"] == "teacher":
            assert (low, high, p) == ("", "", "")
            assert row["gap_closed"] == row["rank"] == ""
        elif p:
            tested += 1
            assert (float(low) > 0 or float(high) < 0) == (float(p) < 0.05), row["method"]
    assert bool(tested) == any(row["method"] == CONTROLS[control] and int(row["n"]) > 1 for row in rows), "one seed has no interval"


@pytest.mark.parametrize("name", BENCHES)
def test_every_run_is_done_or_its_failure_shown_and_none_names_a_place_of_the_machine_it_was_made_on(name):
    bench = read_bench(RESULTS / name)
    assert bench.notes == ()
    shown = (RESULTS / name / "leaderboard.md").read_text()
    for record in bench.records:
        assert record.state == "done" or f"failed: `{record.id}`" in shown
    assert files_with_places_of_a_machine(RESULTS / name) == []
