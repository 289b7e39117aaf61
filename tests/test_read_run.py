"""A run read from plain data: what several share is parsed once, and everything else is as if each were parsed alone."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_training import planned

from kdzoo.errors import InputError
from kdzoo.runs.atomic import read_json
from kdzoo.runs.canonical import canonical, canonical_json
from kdzoo.runs.pieces import members, object_of_members
from kdzoo.runs.plan_text import PlanTexts
from kdzoo.runs.read_run import read_plan_file, read_run
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run, TermSpec
from kdzoo.runs.store import RunFolder

RESULTS = Path(__file__).resolve().parent.parent / "results"


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


def text_of(value: object) -> bytes:
    """A JSON value as kdzoo's own files have it."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


ABOUT = {
    "pair": "resnet20/resnet8",
    "note": 'a "quoted": word,\n "and a line": {',
    "methods": {"hinton": {"scale": 1, "published": {"task": 0.1, "term": 0.9}}},
}
FILE = text_of({"about": ABOUT, "id": a_run().id, "run": written(a_run())})


def outcome(text: bytes) -> object:
    """What a file says, or what is wrong with it."""
    try:
        return read_plan_file(text, a_run().id, "run.json")
    except InputError as error:
        return error.problems


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), JSON, min_size=1, max_size=5))
@example({"a": 'line\n "b": 1,\n "c": 2', "b": {}})
def test_an_object_is_what_its_members_are(content):
    """Of files that kdzoo wrote, whatever stands in them; deeper ones too."""
    cut = members(text_of(content).removesuffix(b"\n"), 1)
    assert cut is not None
    assert {name: json.loads(piece) for name, piece in cut.items()} == content
    inner = members(members(text_of({"run": content}).removesuffix(b"\n"), 1)["run"], 2)
    assert inner is not None
    assert {name: json.loads(piece) for name, piece in inner.items()} == content


PLACES = st.integers(0, len(FILE))
PUT_IN = st.sampled_from(
    [b"", b"\n", b'",\n "', b",\n ", b' "id": 3,\n', b'\n  "seed": 5,', b"}", b"{", b'"', b"NaN", b"\xff", b"7", b"null", b"\\"]
)


@given(st.lists(st.tuples(PLACES, st.integers(0, 30), PUT_IN), max_size=3))
@example([(FILE.index(b' "id"'), 0, b' "id": "other",\n')])
@example([(FILE.index(b'"id"'), 0, b'"more": 1,\n ')])
@example([(FILE.index(b'  "seed"'), 0, b'  "seed": 7,\n')])
@example([(FILE.index(b'"seed": 0'), 9, b'"seed": 1')])
@example([(FILE.index(b'"seed": 0'), 9, b'"seed": NaN')])
@example([(FILE.index(b'"scale": 1'), 10, b'"scale": -1')])
@example([(FILE.index(b'"scale": 1'), 10, b'"scale": NaN')])
def test_a_changed_file_says_what_it_says_on_one_line(edits):
    """A layout of which no members are cut: the whole of it is parsed. What is no JSON is told in either."""
    text = FILE
    for place, cut, put in edits:
        text = text[:place] + put + text[place + cut :]
    try:
        one_line = json.dumps(json.loads(text)).encode()
    except ValueError:
        found = outcome(text)
        assert isinstance(found, tuple)
        assert found[0].startswith("run.json: damaged (")
        return
    assert members(one_line, 1) is None
    assert repr(outcome(text)) == repr(outcome(one_line))


def test_a_file_is_read_with_the_record_beside_the_run_and_what_is_wrong_with_it():
    whole = read_plan_file(FILE, a_run().id, "run.json")
    assert whole.run == a_run()
    assert (whole.about, whole.faults) == (ABOUT, ())
    assert whole.parts == {name: canonical_json(part) for name, part in a_run().model_dump(mode="json").items()}
    again = read_plan_file(FILE, a_run().id, "run.json")
    assert again.run.recipe is whole.run.recipe
    whole.about["pair"] = "changed"
    assert read_plan_file(FILE, a_run().id, "run.json").about == ABOUT
    assert read_plan_file(FILE.replace(b'"scale": 1', b'"scale": 0'), a_run().id, "run.json").faults != ()


def committed_plans() -> list[RunFolder]:
    """Every run that is committed with its results, of every kind of bench."""
    return [RunFolder(file.parent) for file in sorted(RESULTS.rglob("run.json"))]


def test_a_plan_is_laid_out_from_shared_parts_as_json_lays_it_out_whole():
    texts, folders = PlanTexts(), committed_plans()
    assert len(folders) > 500
    for folder in folders:
        run, about = folder.read_plan()
        content = {"about": about, "id": run.id, "run": canonical(run.model_dump(mode="json"))}
        whole = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        planned = texts.of(run, about)
        assert planned.without_digest.decode() == whole, folder.path
        assert planned.content == folder.plan_file(), folder.path
        assert repr(planned.content.run) == repr(folder.plan_file().run), folder.path
        assert list(planned.content.parts) == list(folder.plan_file().parts), folder.path
        assert folder.has_plan(planned), folder.path


def test_a_run_is_planned_as_its_file_will_be_read(tmp_path):
    """To the kind of every number: whole hyper-parameters, alone and in lists, are integers in a file."""
    made = planned(tmp_path, methods="hinton,crd,reviewkd,at", set={"recipe.lr": 1.0}, temperatures=[4.0, 2.5], weights=[1.0])
    texts = PlanTexts()
    for one in made.students:
        text, content = texts.of(one.run, one.about)
        from_file = read_plan_file(text, one.run.id, "run.json")
        assert (repr(content.run), list(content.parts.items())) == (repr(from_file.run), list(from_file.parts.items()))
    assert "'temperature': 4}" in repr(made.students)
    term = TermSpec(method="m", version="1", hyperparameters={"scales": [1.0, 0.5]}, coefficient=1.0)
    assert repr(term.hyperparameters) == "{'scales': [1, 0.5]}"


def test_one_text_serves_only_the_record_that_it_was_made_of():
    """Records are told apart by identity: one that is made where another was must not be taken for it."""
    texts, run = PlanTexts(), a_run()
    for number in range(100):
        assert json.loads(texts.of(run, {"paths": {"data": str(number)}}).text)["about"] == {"paths": {"data": str(number)}}


@given(st.dictionaries(st.sampled_from(["a", "b1", "_c"]), st.recursive(st.none() | st.text(max_size=5), st.lists, max_leaves=5)))
def test_an_object_of_members_is_laid_out_as_json_lays_it_out(content):
    texts = {name: json.dumps(value, indent=1).replace("\n", "\n ").encode() for name, value in content.items()}
    if content:
        assert object_of_members(texts, 1) == json.dumps(content, indent=1, sort_keys=True).encode()
        assert members(object_of_members(texts, 1), 1) == dict(sorted(texts.items()))
