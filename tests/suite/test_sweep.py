"""How a bench comes down to distinct runs: one meaning of alpha, ids of resolved coefficients, each run once."""

import re

import pytest

from kdzoo.contract.card import Setting
from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.suite.plan.cohorts import make_jobs
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.objectives import objective
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.refit_plan import refit
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.plan.sweep import plan


def spec(text: str, alpha: float | None = None, weight: float = 1.0, pairing: str = "deep", **hyperparameters) -> ObjectiveSpec:
    request = parse_request(text)
    given = {request.terms[0]: hyperparameters} if request.terms else {}
    return objective(request, Setting(alpha=alpha, weight=weight), given, pairing, 240)


def coefficients(made: ObjectiveSpec) -> tuple[float, dict[str, float]]:
    return made.task, {term.method: term.coefficient for term in made.terms}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))


def digits(tmp_path, **options) -> Plan:
    return plan(bench_config({"results": str(tmp_path), "data": "digits", "pairs": "digits", "recipe": "digits", **options}, None))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["hinton", "at", "crd", "fitnet", "logits", "rkd"])
def test_alpha_weighs_the_teacher_for_every_method(name, alpha):
    task, terms = coefficients(spec(name, alpha))
    assert task == pytest.approx(1 - alpha)
    assert terms == {name: pytest.approx(alpha * REGISTRY.get(name).card.scale)}


def test_without_alpha_the_published_coefficients_hold():
    assert coefficients(spec("hinton")) == (0.1, {"hinton": 0.9})
    assert coefficients(spec("at")) == (1.0, {"at": 1000.0})
    assert coefficients(spec("fitnet")) == (1.0, {"fitnet": 100.0})
    assert coefficients(spec("rkd")) == (1.0, {"rkd": 1.0})
    assert coefficients(spec("crd")) == (1.0, {"crd": 0.8})


def test_hinton_at_alpha_nine_tenths_is_hinton_by_default():
    assert spec("hinton", 0.9) == spec("hinton")


def test_alpha_zero_is_the_student_alone_whatever_the_method():
    assert spec("hinton", 0.0) == spec("at", 0.0) == spec("none") == ObjectiveSpec(task=1.0)


def test_alpha_one_needs_a_term_that_trains_the_classifier():
    assert coefficients(spec("hinton", 1.0)) == (0.0, {"hinton": 1.0})
    with pytest.raises(InputError, match="never train the classifier"):
        spec("at", 1.0)


@pytest.mark.parametrize("alpha", [-0.1, 1.5, 2])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(InputError, match=r"alphas: expected numbers in \[0, 1\]"):
        spec("hinton", alpha)


def test_a_sum_is_ce_once_and_each_term_as_published_in_order():
    assert coefficients(spec("hinton+at")) == (1.0, {"at": 1000.0, "hinton": 0.9})
    assert spec("hinton+at") == spec("at+hinton")
    with pytest.raises(InputError, match="twice"):
        parse_request("at+at")


def test_an_exact_sum_says_everything():
    assert coefficients(spec("0.1*ce+0.9*hinton+1000*at")) == (0.1, {"at": 1000.0, "hinton": 0.9})
    assert spec("0.1*ce+0.9*hinton") == spec("hinton")
    with pytest.raises(InputError, match="did you mean 'hinton'"):
        parse_request("0.1*ce+0.9*hintn")


def test_weights_are_factors_on_the_published_coefficient():
    assert coefficients(spec("at", weight=0.3)) == (1.0, {"at": 300.0})


def test_pairing_matters_only_to_methods_that_read_stages():
    assert spec("hinton", pairing="left") == spec("hinton")
    assert spec("at", pairing="left") != spec("at")


def test_the_grid_of_a_method_without_temperature_collapses(tmp_path):
    made = digits(tmp_path, methods="hinton,at", temperatures="1,2,4", alphas="0,0.5,0.9", seeds="2")
    labels = [planned.run.objective.label for planned in made.students]
    assert labels.count("none") == 2
    assert labels.count("hinton") == 3 * 2 * 2
    assert labels.count("at") == 2 * 2
    assert made.grid_size == 2 * (1 + 9 + 3)
    assert sum(made.duplicates.values()) == made.grid_size - len(made.students)
    assert "student alone" in next(iter(made.duplicates))


def test_controls_are_there_unasked_and_tuned_like_the_others(tmp_path):
    made = digits(tmp_path, methods="rkd", tune=3, seeds="1")
    labels = [planned.run.objective.label for planned in made.students]
    assert {label: labels.count(label) for label in set(labels)} == {"none": 1, "hinton": 3, "rkd": 3}


@pytest.mark.parametrize(
    "axis", [{"alphas": "0.5"}, {"weights": "3"}, {"temperatures": "2"}, {"doses": "0.1"}, {"grid": {"at.power": [4]}}]
)
def test_an_axis_that_tune_would_ignore_is_refused_by_name(tmp_path, axis):
    name = next(iter(axis)) if "grid" not in axis else "grid.at.power"
    ours = re.escape(f"tune: tries the settings of each method's own search list and would ignore {name}; give one or the other")
    with pytest.raises(InputError, match=ours):
        digits(tmp_path, methods="at", tune=3, **axis)


def test_an_axis_that_takes_kd_away_from_its_published_coefficients_is_noted(tmp_path):
    away = digits(tmp_path, methods="hinton,at", weights="0.01")
    (note,) = [note for note in away.notes if "KD control" in note]
    assert "published coefficients (0.1 CE + 0.9 KD) are not among the settings tried" in note
    for given in ({"weights": "0.01,1"}, {"alphas": "0.5,0.9"}, {}):
        assert not any("KD control" in note for note in digits(tmp_path, methods="hinton,at", **given).notes)


def test_controls_may_have_more_seeds_than_the_rest(tmp_path):
    few = {planned.run.id for planned in digits(tmp_path, methods="at", seeds="3,5").students}
    made = digits(tmp_path, methods="at", seeds="3,5", control_seeds=4, temperatures="2,4")
    seeds = {}
    for planned in made.students:
        seeds.setdefault((planned.run.objective.label, str(planned.run.objective)), []).append(planned.run.seed)
    assert {label: found for (label, _), found in seeds.items()} == {"none": [3, 5, 6, 7], "hinton": [3, 5, 6, 7], "at": [3, 5]}
    assert len(seeds) == 4  # KD stands there at both temperatures
    assert made.grid_size == 4 + 2 * 4 + 2  # attention transfer has no temperature: one setting
    assert few < {planned.run.id for planned in digits(tmp_path, methods="at", seeds="3,5", control_seeds=4).students}


def test_a_refit_takes_seeds_that_no_control_has_used_and_more_of_them_for_controls(tmp_path):
    config = bench_config(
        {
            "results": str(tmp_path),
            "data": "digits",
            "pairs": "digits",
            "recipe": "digits",
            "methods": "at",
            "seeds": 2,
            "control_seeds": 4,
        },
        None,
    )
    made = plan(config)
    again = refit([(planned.run, planned.about) for planned in made.students if planned.run.seed == 0], config, made.teachers)
    seeds = {planned.run.objective.label: set() for planned in again.students}
    for planned in again.students:
        seeds[planned.run.objective.label].add(planned.run.seed)
    assert seeds == {"none": {4, 5, 6, 7}, "hinton": {4, 5, 6, 7}, "at": {4, 5}}


@pytest.mark.parametrize(
    ("asked", "fault"), [(2, r"control_seeds: expected at least as many as the other methods have \(3\), got 2"), (0, "control_seeds")]
)
def test_controls_with_fewer_seeds_than_the_rest_are_refused(tmp_path, asked, fault):
    with pytest.raises(InputError, match=fault):
        digits(tmp_path, methods="at", seeds=3, control_seeds=asked)


def test_the_declared_setting_comes_first_in_every_search_list():
    for name in REGISTRY.names():
        first = REGISTRY.get(name).card.search[0]
        assert spec(name, first.alpha, first.weight, **first.hyperparameters) == spec(name), name


def test_any_field_can_be_an_axis(tmp_path):
    made = digits(tmp_path, methods="crd", grid={"crd.negatives": "64,256"}, seeds="1")
    found = {p.run.objective.terms[0].hyperparameters["negatives"] for p in made.students if p.run.objective.label == "crd"}
    assert found == {64, 256}
    with pytest.raises(InputError, match="did you mean 'negatives'"):
        digits(tmp_path, methods="crd", grid={"crd.negative": "64"})


def test_one_seed_is_the_same_student_and_data_for_every_method(tmp_path):
    made = digits(tmp_path, methods="hinton,at,crd", seeds="3,4")
    assert {p.run.seed for p in made.students} == {3, 4}
    assert len({(p.run.student, p.run.data, p.run.recipe) for p in made.students}) == 1
    assert len(made.teachers) == 1
    assert next(iter(made.teachers.values())).run.seed == 0


def test_runs_that_read_no_teacher_name_none(tmp_path):
    made = digits(tmp_path, methods="hinton", seeds="1")
    assert {p.run.objective.label: p.run.teacher is None for p in made.students} == {"none": True, "hinton": False}


def test_a_refit_uses_fresh_seeds_and_all_training_images_for_students_and_teachers(tmp_path):
    config = bench_config({"results": str(tmp_path), "data": "digits", "pairs": "digits", "recipe": "digits", "seeds": "3"}, None)
    made = plan(config)
    chosen = next(p for p in made.students if p.run.objective.label == "hinton")
    again = refit([(chosen.run, chosen.about)], config, made.teachers)
    assert [p.run.seed for p in again.students] == [chosen.run.seed + 3 + i for i in range(3)] or {p.run.seed for p in again.students} == {
        3,
        4,
        5,
    }
    assert {p.run.data.val_fraction for p in again.students} == {0.0}
    (teacher,) = again.teachers.values()
    assert teacher.run.data.val_fraction == 0.0
    assert {p.run.teacher.start for p in again.students} == {f"run:{teacher.run.id}"}
    sizes = ("train", "labelled", "validation", "test", "unused")
    assert [tuple(p.about["data"][part] for part in sizes) for p in (chosen, teacher)] == [
        (1150, 1150, 288, 359, 0),
        (1438, 1438, 0, 359, 0),
    ]
    assert {tuple(p.about["data"][part] for part in sizes) for p in again.students} == {(1438, 1438, 0, 359, 0)}


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_a_plan_is_cut_into_jobs_that_cover_every_run_once_after_their_teacher(tmp_path, processes):
    made = digits(tmp_path, methods="hinton,at,rkd", seeds="3")
    jobs = make_jobs(made.students, made, WorkerOptions(), processes)
    trained = [run_id for job in jobs if job.kind == "students" for run_id in job.ids]
    assert sorted(trained) == sorted(p.run.id for p in made.students)
    teachers = [job for job in jobs if job.kind == "teacher"]
    assert len(teachers) == 1
    assert all(job.waits_for == teachers[0].name for job in jobs if job.kind == "students")
    assert all(len({made_run.run.seed for made_run in made.students if made_run.run.id in job.ids}) <= 1 for job in jobs)


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_methods_without_a_teacher_train_from_the_command_line(kdzoo, place):
    methods = ["byot", "cskd", "pskd", "tfkd", "dml"]
    words = ["--temperatures", "4", "--results", "r", "--name", "b", "--epochs", "1", "--jobs", "1"]
    said = kdzoo("bench", "--quick", "--methods", ",".join(methods), *words)
    assert said.status == 0, said.err
    assert [method for method in methods if method not in said.out] == []
    assert [method for method in methods if not list(place.glob(f"r/b/runs/{method}-*/result.json"))] == []
