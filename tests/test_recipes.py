"""A recipe's keys mean the same on the command line, in a YAML file and from Python."""

from pathlib import Path

import yaml

from kdzoo.spec import Run
from kdzoo.suite.config import assignments, bench_config
from kdzoo.suite.sweep import plan

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
