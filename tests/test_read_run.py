"""A run read from plain data: what several share is parsed once, and everything else is as if each were parsed alone."""

import json

import pytest

from kdzoo.errors import InputError
from kdzoo.runs.atomic import read_json
from kdzoo.runs.canonical import canonical, canonical_json
from kdzoo.runs.read_run import read_run
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run, TermSpec


def a_run(seed: int = 0, temperature: float = 4.0) -> Run:
    term = TermSpec(method="hinton", version="1", hyperparameters={"temperature": temperature}, coefficient=0.9)
    return Run(
        student=NetworkSpec(name="resnet8", classes=10),
        teacher=NetworkSpec(name="resnet20", classes=10, start="run:none-0123456789ab"),
        data=DataSpec(name="cifar10", fingerprint="f00d", classes=10),
        recipe=Recipe(epochs=5, batch_size=64, lr=0.1),
        objective=ObjectiveSpec(task=0.1, terms=(term,)),
        seed=seed,
    )


def written(run: Run) -> dict:
    return json.loads(json.dumps(canonical(run.model_dump(mode="json"))))


def test_a_run_is_read_back_with_its_parts_and_runs_share_what_they_have_in_common():
    runs = [a_run(0), a_run(1), a_run(0, 2.0)]
    read = [read_run(written(run), run.id, "run.json") for run in runs]
    assert [run for run, _ in read] == runs
    for run, parts in read:
        assert parts == {name: canonical_json(part) for name, part in run.model_dump(mode="json").items()}
    first, second, third = (run for run, _ in read)
    assert first.recipe is second.recipe is third.recipe
    assert first.objective is second.objective
    assert first.objective is not third.objective


def test_content_that_is_not_canonical_is_the_same_run():
    run = a_run()
    content = written(run)
    content["objective"]["terms"][0]["hyperparameters"]["temperature"] = 4.0
    assert '"temperature":4}' in read_run(content, run.id, "run.json")[1]["objective"]


def test_every_fault_is_named_also_where_another_run_has_the_same_one():
    for _ in range(2):
        content = written(a_run())
        content["recipe"]["epochs"], content["data"]["clases"], content["seed"] = 0, 3, True
        with pytest.raises(InputError) as caught:
            read_run(content, "hinton-0123456789ab", "run.json")
        places = [problem.partition(":")[0] for problem in caught.value.problems]
        assert places == ["run.json.data.clases", "run.json.recipe.epochs", "run.json.seed"]
    with pytest.raises(InputError, match=r"run\.json\.recipe\.lr: "):
        read_run({**written(a_run()), "recipe": {**written(a_run())["recipe"], "lr": float("nan")}}, a_run().id, "run.json")
    with pytest.raises(InputError, match=r"run\.json: "):
        read_run(None, a_run().id, "run.json")
    with pytest.raises(InputError, match=f"run.json: describes {a_run().id}, not the run its folder is named after"):
        read_run(written(a_run()), a_run(1).id, "run.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [0.1, 1e-5, 123456789012345678901234567890, -0.0, true, null, "\\u00e9\\ud83d\\ude00"]}',
        '\ufeff{"a": 1}',
        '{"a": "\\ud800"}',
        '{"a": 1e400, "b": NaN}',
        "[" * 300 + "]" * 300,
        '{"a": 1,}',
        "",
    ],
)
def test_a_file_holds_what_json_reads_in_it(tmp_path, text):
    file = tmp_path / "x.json"
    file.write_text(text, encoding="utf-8")
    expected = parsed(file.read_bytes())
    if isinstance(expected, dict):
        assert repr(read_json(file)) == repr(expected)
        return
    reason = str(expected) if isinstance(expected, ValueError) else "expected a JSON object"
    with pytest.raises(InputError, match="damaged") as caught:
        read_json(file)
    assert reason in str(caught.value)


def parsed(text: bytes) -> object:
    """What the standard library reads, or why it does not."""
    try:
        return json.loads(text)
    except ValueError as error:
        return error
