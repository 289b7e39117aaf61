"""A recipe's keys mean the same on the command line, in a YAML file and from Python; docs/recipes.md, followed to the letter."""

import contextlib
import io
import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml
from pages import page

from kdzoo.errors import InputError
from kdzoo.files import CONFIGS
from kdzoo.models.build import build_network
from kdzoo.models.weights import save_student
from kdzoo.runs.spec import NetworkSpec, Run
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.plan.yaml_files import assignments

WORDS = {"data": "digits", "teacher": "digits_teacher", "student": "digits_student", "recipe": "digits", "methods": "hinton", "seeds": 1}
ADAM = {"optimizer": "adam", "lr": 0.002, "schedule": "linear", "warmup": 0.1}


def planned(options: dict, file: Path | None = None) -> dict[str, Run]:
    """The runs that a bench comes to, teachers too, by their ids."""
    made = plan(bench_config(options, file))
    return {found.run.id: found.run for found in (*made.teachers.values(), *made.students)}


def test_adam_with_a_linear_schedule_is_one_run_on_the_command_line_in_yaml_and_from_python(place):
    typed = planned({**WORDS, "set": assignments(f"recipe.{key}={value}" for key, value in ADAM.items())})
    (place / "adam.yaml").write_text(yaml.safe_dump({**WORDS, "recipe": {"name": "digits", **ADAM}}))
    called = planned({**WORDS, "recipe": {"name": "digits", **ADAM}})
    assert set(typed) == set(called) == set(planned({}, place / "adam.yaml"))
    assert set(typed).isdisjoint(planned(WORDS))
    for run in typed.values():
        assert run.recipe.model_dump().items() >= ADAM.items()


PAGE = page("recipes.md")
COMMANDS = [line for block in PAGE.blocks("bash") for line in block.strip().splitlines()]


def settings(command: str) -> dict[str, str]:
    """The `--set` options of a command."""
    words = shlex.split(command)
    return dict(word.split("=", 1) for before, word in itertools.pairwise(words) if before == "--set")


@pytest.fixture
def followed(place: Path, kdzoo) -> list[str]:
    """What the page's benches say, in order, in a folder with its files."""
    for name, code in PAGE.files.items():
        (place / name).write_text(code)
    said = [kdzoo(*shlex.split(command)[1:]) for command in COMMANDS if command.startswith("kdzoo ")]
    assert [one.status for one in said] == [0] * 4, [one.err for one in said]
    return [one.out for one in said]


def test_the_page_says_one_teacher_and_one_student_in_each_of_its_ways(followed, place):
    typed, filed, longer, filed_longer = followed
    teachers = [re.search(r"teacher +digits_teacher is trained first, for (\d+) epochs \((none-\w+)\)", said) for said in followed]
    assert [found and found[1] for found in teachers] == ["40", "40", "60", "60"]
    assert len({found and found[2] for found in teachers}) == 2
    assert "recipe        digits, 40 epochs a run" in typed
    assert "recipe        digits, 20 epochs a run" in longer
    for one, other in ((typed, filed), (longer, filed_longer)):
        # what is trained, without the time it is to take and the memory that happens to be free
        ends = [re.sub(r"[\d.]+ .B are free", "", re.split("distinct runs|time ", said)[1]) for said in (one, other)]
        assert ends[0] == ends[1]
    assert settings(COMMANDS[0]) == {f"recipe.{key}": str(value) for key, value in ADAM.items()}


def test_only_the_teacher_has_what_the_page_sets_for_the_teacher(place):
    runs = planned(yaml.safe_load(PAGE.files["longer.yaml"])).values()
    found = {(run.student.name, run.recipe.epochs, run.recipe.augment.crop, run.recipe.augment.pad) for run in runs}
    assert found == {("digits_teacher", 60, "pad", 1), ("digits_student", 20, "none", 0)}
    limited = planned({**WORDS, "set": {"recipe.max_norm": 3, "teacher_recipe.max_norm": None}}).values()
    assert {(run.student.name, run.recipe.max_norm) for run in limited} == {("digits_teacher", None), ("digits_student", 3)}


def test_a_recipe_for_a_teacher_that_is_not_trained_is_told_to_have_no_effect(place):
    teacher = build_network(NetworkSpec(name="mlp_8", classes=10), channels=1, side=8, mean=(0.5,), std=(0.5,), seed=0)
    save_student(teacher, place / "mlp_8.safetensors", {"architecture": "mlp_8"})
    asked = {**WORDS, "teacher": "mlp_8:mlp_8.safetensors", "set": {"teacher_recipe.epochs": 60, "teacher_recipe.lr": 0.2}}
    words = "teacher_recipe.epochs, teacher_recipe.lr: no effect, since the teacher has its weights already and is not trained"
    assert words in plan(bench_config(asked, None)).notes
    assert words not in plan(bench_config({**asked, "teacher": "mlp_8"}, None)).notes


def test_the_pages_bench_on_mnist_is_the_one_that_comes_with_kdzoo():
    shipped = yaml.safe_load((CONFIGS / "benches" / "hinton_mnist.yaml").read_text())
    shown = yaml.safe_load(PAGE.files["hinton.yaml"])
    assert {key: shipped[key] for key in shown} == shown
    assert set(shipped) - set(shown) == {"name", "seeds", "keep"}


def test_the_pages_calibration_makes_fewer_errors_on_other_data(place):
    assert COMMANDS[-1] == "python calibrate.py"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(PAGE.files["calibrate.py"], "calibrate.py", "exec"), {})
    bias, before, after = map(float, re.findall(r"-?[\d.]+", said.getvalue()))
    assert 2 < bias < 5
    assert after < before / 2


FILE = {"description": "mine", "recipe": {"epochs": 1, "batch_size": 64, "lr": 0.1}}


@pytest.mark.parametrize("augment", [True, 0, "", "flip", [], ["flip"], 0.5])
def test_augmentation_that_is_no_mapping_is_refused_and_a_key_left_empty_is_none(tmp_path, augment):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**FILE, "recipe": {**FILE["recipe"], "augment": None}}))
    without = tmp_path / "without.yaml"
    without.write_text(yaml.safe_dump(FILE))
    assert recipe_file(str(file)).resolve("resnet8", {}) == recipe_file(str(without)).resolve("resnet8", {})
    assert recipe_file(str(file)).augment == {}
    file.write_text(yaml.safe_dump({**FILE, "recipe": {**FILE["recipe"], "augment": augment}}))
    with pytest.raises(InputError, match=r"recipe mine\.recipe: augment: expected keys and their values, got "):
        recipe_file(str(file))


@pytest.mark.parametrize("place", ["min_steps", "min_val", "recipe.epochs", "recipe.batch_size"])
def test_numbers_that_no_training_reaches_are_refused_in_few_words(tmp_path, place):
    """Of 400 digits a message repeats 60."""
    parent, _, key = place.rpartition(".")
    changed = {**FILE, "recipe": {**FILE["recipe"], key: 10**400}} if parent else {**FILE, key: 10**400}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(changed))
    with pytest.raises(InputError) as refused:
        recipe_file(str(file)).resolve("resnet8", {}, images=1000)
    (problem,) = refused.value.problems
    assert f"{key}: expected a number <= 1e+09, got 1{59 * '0'}... (401 characters)" in problem
