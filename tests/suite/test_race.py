"""A race: more seeds for some methods, by a rule that stands in the study's file before anything is trained."""

import csv
import io
from dataclasses import replace

import pytest
import test_leaderboard
import torch
import yaml
from test_leaderboard import objective, write

from kdzoo.cli.reproduce import race_lines
from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.models import placement
from kdzoo.runs.spec import ObjectiveSpec, TermSpec
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.published import Published
from kdzoo.suite.report.race import decide, more_seeds
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.failures import others_than_divergence
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare
from kdzoo.suite.study.evidence import write_evidence
from kdzoo.suite.study.hours import count_runs, hours
from kdzoo.suite.study.published_gains import published_gains
from kdzoo.suite.study.reproduce import request_study
from kdzoo.suite.study.study_files import read_study, study_file

BENCH = {"data": "digits", "pairs": ["digits"], "recipe": "smoke", "methods": ["at", "sp", "dkd", "vid"]}
REFITTED = {**BENCH, "tune": 2, "seeds": 1, "val_fraction": 0.2, "refit": True, "refit_seeds": 3}
RULE = {"stage": "table", "best": 1, "widest": 1, "seeds": 5, "control_seeds": 6}
RACE = Race(**RULE)
CONFIG = bench_config({**REFITTED, "name": "table"}, None)

FRESH = {
    "none": (0.80, 0.81, 0.82), "hinton": (0.850, 0.851, 0.852),
    "at": (0.870, 0.872, 0.871),  # the highest mean
    "sp": (0.855, 0.856, 0.857), "dkd": (0.80, 0.85, 0.90),  # the widest spread
    "vid": (0.860, 0.861, 0.862),
}  # fmt: skip
"""test accuracies of seeds 1, 2 and 3 on all training images"""


def study_of(folder, **changes):
    content = {
        "title": "A race", "claim": "It ends.", "source": "https://example.org", "tries": [],
        "stages": [{"name": "table", "bench": REFITTED}, {"name": "final", "race": RULE}],
        "measures": [{"name": "gain", "of": {"method": "hinton"}, "minus": {"method": "none"}, "between": [0, None]}],
    }  # fmt: skip
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**content, **changes}))
    return file


def made(method: str) -> ObjectiveSpec:
    if method in ("none", "hinton", "at"):
        return objective(method)
    return ObjectiveSpec(task=1.0, terms=(TermSpec(method=method, version="1", hyperparameters={}, coefficient=1.0),))


def sweep(folder, method):
    return write(folder / "table", made(method), 0, val=0.8, test=0.5, data={"val_fraction": 0.2})


def refitted(folder, method, seed, test, **more):
    about = {"phase": "refit", "sweep_teacher": "run:none-0123456789ab"}
    return write(folder / "table", made(method), seed, val=None, test=test, data={"val_fraction": 0.0}, about=about, **more)


@pytest.fixture
def raced(tmp_path, monkeypatch):
    """A sweep of one seed and a refit of three."""
    monkeypatch.setattr(test_leaderboard, "CARDS", {**test_leaderboard.CARDS, **dict.fromkeys(("sp", "dkd", "vid"), _CARD)})
    for method, values in FRESH.items():
        sweep(tmp_path, method)
        for seed, test in enumerate(values, start=1):
            refitted(tmp_path, method, seed, test)
    return tmp_path


_CARD = {"scale": 1.0, "published": {"task": 1.0, "term": 1.0}, "declared": {}}


def taken(folder, race=RACE) -> tuple[list[str], list[str], list[str]]:
    (decision,) = decide(read_bench(folder / "table"), CONFIG, race)
    return tuple([standing.record.method for standing in found] for found in (decision.best, decision.widest, decision.controls))


def test_the_best_means_and_of_the_others_the_widest_intervals_go_on_with_the_controls(raced):
    assert taken(raced) == (["at"], ["dkd"], ["none", "hinton"])
    assert taken(raced, Race(**{**RULE, "best": 3, "widest": 0}))[:2] == (["at", "vid", "sp"], [])
    assert taken(raced, Race(**{**RULE, "best": 0, "widest": 1}))[:2] == ([], ["dkd"])


def test_the_rule_comes_to_the_same_whatever_the_seeds_that_it_added_come_to(raced):
    """A method that turns out to be much worse on the added seeds stays what it was decided to be."""
    for seed in (4, 5):
        refitted(raced, "at", seed, 0.10)
        refitted(raced, "dkd", seed, 0.90)
    assert taken(raced) == (["at"], ["dkd"], ["none", "hinton"])


def test_a_collapsed_method_and_one_whose_training_failed_take_no_part(raced):
    run = refitted(raced, "at", 3, 0.871)
    (raced / "table" / "runs" / run.id / "result.json").unlink()
    refitted(raced, "at", 3, 0.0, fail="FloatingPointError: the loss became NaN or infinite at step 7")
    assert taken(raced)[0] == ["vid"]


def test_nothing_is_decided_while_a_run_of_the_refit_is_missing(raced):
    (raced / "table" / "runs" / refitted(raced, "vid", 3, 0.862).id / "result.json").unlink()
    with pytest.raises(InputError, match="stage table: not decided yet, 1 run of its refit missing"):
        taken(raced)


def test_added_seeds_follow_those_of_the_refit_and_are_none_of_the_sweep():
    assert list(more_seeds("at", CONFIG, RACE, [0])) == [4, 5]
    assert list(more_seeds("hinton", CONFIG, RACE, [0])) == [4, 5, 6]
    assert list(more_seeds("at", CONFIG, RACE, [0, 1, 2])) == [6, 7]


def test_the_table_holds_every_row_with_its_seeds_and_says_what_is_missing(raced):
    study = read_study(study_of(raced))
    write_evidence(study, "mine", raced)
    page = (raced / "README.md").read_text()
    assert "Decided by the rule (of stage table" in page
    assert "resnet20/resnet8: best: at; widest interval: dkd." in page
    assert "Missing: more seeds of at, hinton, dkd, student alone." in page
    for method, tests in {"at": (0.861, 0.863), "hinton": (0.849, 0.850, 0.851), "none": (0.81, 0.82, 0.81)}.items():
        for seed, test in enumerate(tests, start=4):
            refitted(raced, method, seed, test)
    (raced / "table" / "runs" / refitted(raced, "dkd", 4, 0.85).id / "result.json").unlink()
    write_evidence(study, "mine", raced)
    rows = {row["measure"]: row for row in csv.DictReader(io.StringIO((raced / "results.csv").read_text()))}
    assert {name: (row["n"], row["planned"]) for name, row in rows.items()} == {
        "gain": ("6", "6"), "race: teacher": ("1", ""), "race: at": ("5", "5"), "race: vid": ("3", "3"), "race: sp": ("3", "3"),
        "race: hinton": ("6", "6"), "race: dkd": ("3", "4"), "race: student alone": ("6", "6"),
    }  # fmt: skip
    at = rows["race: at"]
    assert float(at["mean"]) == pytest.approx((87.0 + 87.2 + 87.1 + 86.1 + 86.3) / 5)
    assert float(at["vs_kd"]) == pytest.approx(float(at["mean"]) - float(rows["race: hinton"]["mean"]))
    assert float(at["added_vs_kd"]) == pytest.approx(86.2 - 85.0)  # on seeds 4 and up alone
    assert (at["selected"], rows["race: dkd"]["selected"], rows["race: vid"]["selected"]) == ("best", "widest", "")
    page = (raced / "README.md").read_text()
    assert "Missing: 1 of 27 runs of the fresh seeds; more seeds of dkd." in page
    refitted(raced, "dkd", 4, 0.85)
    refitted(raced, "dkd", 5, 0.85)
    write_evidence(study, "mine", raced)
    assert "Missing" not in (raced / "README.md").read_text()
    assert "| dkd |" in page
    assert "| 3 of 4 |" in page


def test_the_races_of_a_study_stand_under_their_stages_and_what_has_not_begun_in_a_line(raced):
    """What the columns mean is told once; a rule that gives more seeds to the controls alone decides nothing."""
    controls = {"stage": "table", "best": 0, "seeds": 3, "control_seeds": 6}
    stages = [
        {"name": "table", "bench": REFITTED}, {"name": "final", "race": controls},
        {"name": "other", "bench": REFITTED}, {"name": "other_final", "race": {**RULE, "stage": "other"}},
    ]  # fmt: skip
    write_evidence(read_study(study_of(raced, stages=stages, measures=[], order=["table", "other"])), "mine", raced)
    page = (raced / "README.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == ["# A race", "## Does the order of methods carry over?", "## The tables", "### table", "## How it was trained"]
    assert "Not begun: other." in page
    assert "Missing: more seeds of hinton, student alone." in page
    assert "Decided" not in page
    assert page.count("n: seeds on all training images") == 1


@pytest.mark.parametrize("begun", [False, True])
def test_before_the_refit_the_table_names_every_method_without_a_number(tmp_path, begun):
    if begun:
        sweep(tmp_path, "none")
    write_evidence(read_study(study_of(tmp_path)), "mine", tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "Missing: stage table: not decided yet, its refit has not begun." in page
    assert all(f"| {method} | 0 |" in page for method in ("student alone", "hinton", "at", "sp", "dkd", "vid"))


def test_a_race_is_told_in_words_before_it_is_decided(tmp_path):
    asked = request_study(str(study_of(tmp_path)), tmp_path, None, {})
    told = dict(race_lines(asked, asked.study.stages[1]))
    assert told == {
        "race": "final: 10 runs, results in the folder of table",
        "methods": "the 1 best and the 1 with the widest interval of stage table, on 5 seeds in all",
        "controls": "the student alone and plain KD, on 6 seeds in all",
    }
    assert "left out" in dict(race_lines(replace(asked, seeds=2), asked.study.stages[1]))["race"]


def test_the_faults_of_a_race_are_told_all_at_once(tmp_path):
    stages = [
        {"name": "plain", "bench": BENCH},
        {"name": "table", "bench": REFITTED},
        {"name": "a", "race": {**RULE, "stage": "tabel"}},
        {"name": "b", "race": {**RULE, "best": 4, "widest": 2, "seeds": 2, "control_seeds": 2}, "bench": {"seeds": 3}},
        {"name": "c", "race": {**RULE, "stage": "plain"}},
        {"name": "d", "race": {**RULE, "stage": "b"}},
        {"name": "e", "race": RULE},
    ]
    measures = [{"name": "gain", "of": {"stage": "e", "method": "hinton"}, "between": [0, None]}]
    with pytest.raises(InputError) as refused:
        read_study(study_of(tmp_path, stages=stages))
    told = "\n".join(refused.value.problems)
    for fault in (
        "stages.a.race: earlier stage: unknown 'tabel'; did you mean 'table'?",
        "stages.b.bench: a race has none; it trains more seeds of stage table",
        "stages.b.race: best and widest take 6 methods, but stage table trains 4 beside the controls",
        "stages.b.race: seeds: expected at least the 3 that stage table trains, got 2",
        "stages.b.race: control_seeds: expected at least the 3 that stage table trains, got 2",
        "stages.c.race: stage plain trains no chosen settings again with fresh seeds",
        "stages.d.race: stage b is a race itself",
        "stages.e.race: another race trains more seeds of stage table already",
    ):
        assert fault in told
    with pytest.raises(InputError, match="the runs of e stand in stage table; name that one"):
        read_study(study_of(tmp_path, stages=[stages[1], stages[6]], measures=measures))
    for changes, fault in [
        ({"bestt": 1}, "stages.0.race.bestt: unknown"),
        ({"best": 0, "widest": 0, "control_seeds": None}, "expected best or widest to be at least 1"),
        ({"best": 0, "widest": 0}, "stages.final.race: earlier stage: unknown 'table'"),  # of a study that is a race alone
        ({"control_seeds": 4}, r"control_seeds: expected at least as many as seeds \(5\), got 4"),
        ({"against": "at"}, "'hinton'"),
    ]:
        with pytest.raises(InputError, match=fault):
            read_study(study_of(tmp_path, stages=[{"name": "final", "race": {**RULE, **changes}}]))


def test_the_race_on_cifar100_counts_its_runs_before_it_starts():
    """16 methods at four settings and the student alone; all 17 with three seeds; six methods to 15 seeds and two controls to 30."""
    found = read_study(study_file("cifar100-16"))
    assert [count_runs(found, stage) for stage in found.stages] == [16 * 4 + 1 + 17 * 3, 6 * 12 + 2 * 27]
    assert hours(found) is not None
    families = {"logits", "features", "relations", "self", "online"}
    with REGISTRY.declarations():
        assert {REGISTRY.get(name).card.family for name in found.config(found.stages[0]).methods} == families


def test_the_grid_of_plain_kd_has_a_number_for_every_weight_temperature_and_kind_of_logits():
    found = read_study(study_file("kd-grid"))
    config = found.config(found.stages[0])
    asked = {
        (task, term, temperature, method)
        for method in ("hinton", "logit_std")
        for task, term in ((0.1, 0.9), (0.5, 0.5), (1, 1), (0.1, 9))
        for temperature in (1, 2, 4, 8)
    }
    names = ("task", "coefficient", "temperature")
    assert {(*(one.of.setting[name] for name in names), one.of.method) for one in found.measures} == asked
    terms = {(request.task, request.coefficients[0], request.terms[0]) for request in map(parse_request, config.methods)}
    assert {(task, term, method) for task, term, _, method in asked} == terms


def test_a_cell_is_found_by_its_weights_where_no_alpha_says_them(tmp_path):
    """CE + KD has no alpha, and two sums may share the temperature."""
    for term, test in ((0.9, 0.84), (9.0, 0.86)):
        write(tmp_path / "main", objective("hinton").model_copy(update={"task": 0.1, "terms": (kd(term),)}), 0, val=None, test=test)
    of = {"method": "hinton"}
    measures = [
        {"name": f"{term}", "of": {**of, "setting": {"task": 0.1, "coefficient": term, "temperature": 4}}, "between": [0, None]}
        for term in (0.9, 9)
    ]
    study = study_of(tmp_path, stages=[{"name": "main", "bench": {"data": "digits", "pairs": ["digits"]}}], measures=measures)
    write_evidence(read_study(study), "mine", tmp_path)
    rows = {row["measure"]: row["mean"] for row in csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text()))}
    assert rows == {"0.9": "84", "9": "86"}


def kd(coefficient: float) -> TermSpec:
    return TermSpec(method="hinton", version="1", hyperparameters={"temperature": 4.0}, coefficient=coefficient)


def test_bfloat16_differs_from_float32_in_the_students_precision_alone():
    first, second = read_study(study_file("bfloat16-16")).stages
    ours, theirs = ({**stage.bench, "set": dict(stage.bench["set"])} for stage in (first, second))
    assert theirs["set"].pop("recipe.precision") == "bfloat16"
    assert theirs["set"].pop("teacher_recipe.precision") == "float32"
    assert ours == theirs


def test_half_precision_on_a_cpu_without_instructions_for_it_is_told(monkeypatch):
    monkeypatch.setattr(placement, "bfloat16_units", lambda: ())
    cpu = torch.device("cpu")
    assert "precision bfloat16: this CPU has no instructions for it" in str(placement.why_slow(["float32", "bfloat16"], cpu))
    assert placement.why_slow(["float32"], cpu) is None
    assert placement.why_slow(["bfloat16"], torch.device("cuda")) is None
    monkeypatch.setattr(placement, "bfloat16_units", lambda: ("AMX",))
    assert placement.why_slow(["bfloat16"], cpu) is None


def test_published_gains_are_over_crds_pairs_without_copied_numbers():
    def row(table, pair, method, top1, run_by="source", data="cifar100"):
        return Published(
            pair=pair, data=data, method=method, printed=method, top1=top1, epoch="last", run_by=run_by, source="x", table=table
        )

    rows = [
        row("crd", "a/b", "hinton", 70.0), row("crd", "c/d", "hinton", 60.0),
        row("crd", "a/b", "at", 71.0), row("crd", "c/d", "at", 58.0),
        row("new", "a/b", "at", 73.0),  # without a number for KD of its own: beside CRD's
        row("new", "a/b", "sp", 99.0, run_by="copied"), row("new", "e/f", "at", 99.0), row("new", "a/b", "at", 99.0, data="cifar10"),
    ]  # fmt: skip
    gains = published_gains(rows)
    assert str(gains["at"]) == "0.00 [-2.00, +2.00] (2 pairs: crd, new)"
    assert set(gains) == {"hinton", "at"}


def test_a_setting_under_which_training_diverges_is_a_result_that_no_start_repeats():
    failed = {"a": "FloatingPointError: the loss became NaN or infinite at step 7", "b": "OSError: disk full"}
    assert others_than_divergence(failed) == {"b": "OSError: disk full"}


@pytest.mark.slow
def test_the_refit_goes_on_where_a_setting_diverged(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    options = {"name": "b", "results": str(tmp_path), "data": "digits", "pairs": "digits", "recipe": "digits", "threads": 1, "jobs": 1}
    options |= {"methods": "at", "weights": [1, 1e30], "seeds": 1, "epochs": 1, "limit": 200, "refit": True, "allow_chance_teacher": True}
    outcome = run(prepare(bench_config(options, None)), Here(), lambda _: None, retry_failed=False)
    assert [run_id.partition("-")[0] for run_id in outcome.failed] == ["at", "hinton"]
    refits = [record for record in read_bench(tmp_path / "b").records if record.table_key.phase == "refit"]
    assert sorted((record.method, record.state) for record in refits) == [("at", "done"), ("hinton", "done"), ("none", "done")]


@pytest.mark.slow
def test_a_race_is_run_from_its_file_and_resumed(kdzoo, place):
    bench = {**REFITTED, "methods": ["at", "dkd", "sp"], "recipe": "digits", "epochs": 2, "limit": 200, "refit_seeds": 2}
    bench |= {"allow_chance_teacher": True, "keep": ["predictions"], "tune": 1}
    stages = [{"name": "table", "bench": bench}, {"name": "final", "race": {**RULE, "seeds": 3, "control_seeds": 4}}]
    file = study_of(place, stages=stages)
    assert "no runs of this study yet" in kdzoo("reproduce", file, "--tables").err
    first = kdzoo("reproduce", file, "--jobs", "1")
    assert first.status == 0, first.err
    folder = place / "results" / "papers" / "mine"
    seeds: dict[str, set[int]] = {}
    for record in read_bench(folder / "table").records:
        if record.table_key.phase == "refit":
            seeds.setdefault(record.method, set()).add(record.run.seed)
    assert (seeds["none"], seeds["hinton"]) == ({1, 2, 3, 4}, {1, 2, 3, 4})
    assert sorted(map(sorted, (seeds["at"], seeds["dkd"], seeds["sp"]))) == [[1, 2], [1, 2, 3], [1, 2, 3]]
    before = (folder / "README.md").read_bytes()
    runs = sorted(path.stat().st_mtime_ns for path in folder.glob("*/runs/*/result.json"))
    (folder / "README.md").unlink()
    again = kdzoo("reproduce", file, "--tables")
    assert (again.status, (folder / "README.md").read_bytes()) == (0, before)
    assert runs == sorted(path.stat().st_mtime_ns for path in folder.glob("*/runs/*/result.json"))


def test_a_race_over_a_sweep_that_holds_nothing_out_is_refused(tmp_path):
    bench = {**REFITTED, "val_fraction": 0, "refit": True}
    with pytest.raises(InputError, match="expected refit: true and a val_fraction there"):
        read_study(study_of(tmp_path, stages=[{"name": "table", "bench": bench}, {"name": "final", "race": RULE}]))


def test_a_message_that_names_the_error_is_no_divergence():
    assert others_than_divergence({"a": "FloatingPointError: NaN", "b": "pretrain stage ab: FloatingPointError: NaN"}) == {}
    assert list(others_than_divergence({"c": "ValueError: expected no FloatingPointError here"})) == ["c"]
