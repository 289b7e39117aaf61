"""Several columns of targets: one network with a head for each, each column's loss and metrics, teachers of some of the columns."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from registries import registered_for_a_while

import kdzoo as zoo
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.data.canonical import FurtherColumn, make_dataset
from kdzoo.data.columns import learn, task_for
from kdzoo.data.sources import _digits
from kdzoo.data.split import split
from kdzoo.data.superclasses import SUPERCLASSES, superclass_of
from kdzoo.errors import InputError
from kdzoo.runs.spec import DataSpec, ObjectiveSpec, TermSpec
from kdzoo.runs.store import Store, teacher_store
from kdzoo.suite.report.compare import compare
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.known import task_named
from kdzoo.tasks.multitask import for_teacher, learn_columns
from kdzoo.tasks.task import TargetColumn

NUMBERS = [4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16,
           9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0,
           1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13]  # fmt: skip
"""the coarse label of each fine one, as the set's own files number both: fine ones in the order of their names"""


def parity():
    """The digits, and whether each is odd."""
    raw = _digits()
    odd = [np.asarray(labels) % 2 for _, labels in (raw.train, raw.test)]
    return replace(raw, column="digit", further=(FurtherColumn("parity", *odd, classes=("even", "odd")),))


@pytest.fixture
def digits_with_parity(place):
    with registered_for_a_while():
        zoo.register_source("parity", parity)
        yield place


def test_each_superclass_has_the_classes_that_the_sets_own_files_give_it():
    names = sorted(name for members in SUPERCLASSES.values() for name in members.split())
    assert len(names) == 100
    assert superclass_of(names) == NUMBERS
    assert superclass_of(["maple tree"]) == [list(SUPERCLASSES).index("trees")]


def test_a_further_column_changes_neither_fingerprint_nor_keys_nor_order():
    plain, both = make_dataset("x", _digits()), make_dataset("x", parity())
    assert both.fingerprint == plain.fingerprint
    assert torch.equal(both.train.keys, plain.train.keys)
    assert torch.equal(both.train.targets, plain.train.targets)
    assert both.task is plain.task is CLASSIFICATION
    learned = learn(both, task_for(both, ["parity", "digit"]))
    assert torch.equal(learned.test.targets, torch.stack([plain.test.targets % 2, plain.test.targets], 1))
    assert learned.classes == ("even", "odd")
    assert learned.scores == 12
    assert task_for(both, ["digit"]) is CLASSIFICATION, "the first column alone is what the set is without columns"
    assert torch.equal(learn(both, task_for(both, ["parity"])).test.targets, plain.test.targets % 2)


def test_the_same_images_are_held_out_whichever_columns_are_learned():
    both = make_dataset("x", parity())
    spec = DataSpec(name="x", fingerprint=both.fingerprint, classes=10, val_fraction=0.2, limit=200)
    parts = [split(learn(both, task_for(both, words)), spec) for words in ([], ["parity"], ["parity", "digit"])]
    for other in parts[1:]:
        assert torch.equal(other.original_index, parts[0].original_index)
        assert torch.equal(other.val.keys, parts[0].val.keys)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["digit", "parety"], "columns: unknown 'parety'; did you mean 'parity'"),
        (["digit", "digit"], "digit is named twice"),
        (["0.7*digit", "parity"], "expected a weight of every column or of none, got 0.7\\*digit,parity"),
        (["-1*digit", "2*parity"], "expected weights > 0, such as 0.7\\*digit"),
        (["x*digit", "2*parity"], "expected weights > 0"),
    ],
)
def test_columns_that_cannot_be_learned_are_refused_by_name(words, fault):
    with pytest.raises(InputError, match=fault):
        task_for(make_dataset("x", parity()), words)


def test_a_set_of_one_column_and_columns_that_are_none_are_refused():
    with pytest.raises(InputError, match="x has one column of targets; leave columns out"):
        task_for(make_dataset("x", _digits()), ["class"])
    short = replace(parity(), further=(FurtherColumn("parity", np.zeros(3, int), np.zeros(359, int), ("even", "odd")),))
    with pytest.raises(InputError, match="data: column parity: expected as many train labels as images, got 3 and 1438"):
        make_dataset("x", short)
    with pytest.raises(InputError, match=r"column 'a\.b': expected a name of letters"):
        make_dataset("x", replace(parity(), column="a.b"))
    with pytest.raises(InputError, match="two columns have the same name"):
        make_dataset("x", replace(parity(), column="parity"))


COLUMNS = (TargetColumn("digit", 3, 0.25), TargetColumn("speaker", 2, 2.0))
TASK = learn_columns(COLUMNS)


def test_the_name_of_a_task_says_all_of_it():
    assert TASK.name == "0.25*digit:3+2*speaker:2"
    assert task_named(TASK.name) is TASK
    assert task_named("a:10+b:20").columns == (TargetColumn("a", 10, 0.5), TargetColumn("b", 20, 0.5))
    three = learn_columns(tuple(TargetColumn(name, 2, 1 / 3) for name in "abc"))
    assert three.name == "a:2+b:2+c:2"
    assert task_named(three.name) is three
    alone = task_named("speaker:6")
    assert alone.names == CLASSIFICATION.names
    assert alone.of_classes
    with pytest.raises(InputError, match="unknown 'classificaton'; did you mean 'classification'"):
        task_named("classificaton")


def random_case(count: int = 40):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 5, generator=random)
    targets = torch.stack([torch.randint(classes, (count,), generator=random) for classes in (3, 2)], 1)
    return logits, targets


def test_the_loss_is_the_weighted_sum_of_the_columns_and_skips_what_a_column_lacks():
    logits, targets = random_case()
    targets[:7, 1] = -1
    digit, speaker = logits[:, :3].double().log_softmax(1), logits[7:, 3:].double().log_softmax(1)
    expected = -0.25 * digit[torch.arange(40), targets[:, 0]].mean() - 2 * speaker[torch.arange(33), targets[7:, 1]].mean()
    assert float(TASK.loss(logits, targets, None, 0.0)) == pytest.approx(float(expected), rel=1e-6)


def test_every_metric_of_a_column_is_that_of_a_classification_of_it():
    logits, targets = random_case()
    predictions = TASK.predict(logits)
    measured = TASK.measure(predictions, targets, TASK.predict(logits.flip(0)))
    for place, (prefix, part) in enumerate((("", slice(0, 3)), ("speaker.", slice(3, 5)))):
        own = CLASSIFICATION.predict(logits[:, part])
        expected = CLASSIFICATION.measure(own, targets[:, place], CLASSIFICATION.predict(logits.flip(0)[:, part]))
        assert {name: measured[f"{prefix}{name}"] for name in CLASSIFICATION.names} == {
            name: expected[name] for name in CLASSIFICATION.names
        }
    assert TASK.headline.name == "top1"
    assert [metric.name for metric in TASK.deciding] == ["top1", "nll"]
    assert TASK.headline.heading == "digit top-1"
    assert TASK.by_class(predictions, targets) == CLASSIFICATION.by_class(predictions[:, :3], targets[:, 0])


def test_a_teacher_of_one_column_is_measured_on_that_alone():
    logits, targets = random_case()
    own = for_teacher(TASK, ("speaker",))
    measured = TASK.measure(own.predict(logits[:, 3:]), targets)
    assert measured["top1"] is None
    assert measured["speaker.top1"] == TASK.measure(TASK.predict(logits), targets)["speaker.top1"]
    assert TASK.measure(TASK.predict(logits), targets, own.predict(logits[:, 3:]))["agreement"] is None
    good = F.one_hot(targets[:, 1], 2) * 9.0
    verdict = TASK.against_chance(own.predict(good), targets)
    assert (verdict.above, verdict.metric.heading) == (True, "speaker top-1")
    assert not TASK.against_chance(TASK.predict(torch.cat([torch.zeros(40, 3), good], 1)), targets).above, "one column is at chance"


STAGE = StageShape(4, 2, 2, 4.0)
FACTS = DataFacts(40, 3, random_case()[1])


def objective(*methods: str, teacher: int = 5, columns: tuple[str, ...] | None = None, task=TASK, facts=FACTS):
    terms = tuple(
        TermSpec(method=name, version=zoo.create_method(name).card.version, hyperparameters={}, coefficient=1.0) for name in methods
    )
    shapes = [Shapes(classes, 6, (STAGE,), classifier=torch.nn.Linear(6, classes)) for classes in (5, teacher)]
    return build_objective(
        ObjectiveSpec(task=1.0, terms=terms), *shapes, [(0, 0)], facts, label_smoothing=0.0, seed=0, task=task, teacher_columns=columns
    )


def outputs(seed: int, owner: str, classes: int = 5) -> Outputs:
    random = torch.Generator().manual_seed(seed)
    embedding = torch.randn(8, 6, generator=random)
    values = {Need.LOGITS: torch.randn(8, classes, generator=random), Need.EMBEDDING: embedding, Need.STAGES: [torch.randn(8, 4, 2, 2)]}
    return Outputs.of(values, owner=owner)


def batch() -> Batch:
    return Batch(
        inputs=torch.zeros(8, 1, 2, 2, dtype=torch.uint8),
        targets=random_case()[1][:8],
        index=torch.arange(8),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator(),
    )


def test_a_method_of_scores_is_computed_for_each_column_and_one_of_maps_once():
    student, teacher = outputs(1, "student"), outputs(2, "teacher")
    losses = objective("dkd", "hinton", "sp")(student, teacher, batch())
    kd = [zoo.functional.hinton(student.logits[:, part], teacher.logits[:, part], temperature=4.0) for part in (slice(0, 3), slice(3, 5))]
    assert float(losses.parts["hinton"]) == pytest.approx(float(0.25 * kd[0] + 2 * kd[1]), rel=1e-6)
    one_column = objective("sp", task=CLASSIFICATION, facts=DataFacts(40, 5, torch.arange(40) % 5))
    first = Batch(inputs=torch.zeros(8), targets=torch.arange(8) % 5, index=None, clock=Progress(0, 1, 0, 1), generator=torch.Generator())
    assert losses.parts["sp"].equal(one_column(student, teacher, first).parts["sp"])
    method, targets = zoo.create_method("dkd"), batch().targets
    own = [
        zoo.functional.dkd(
            student.logits[:, part],
            teacher.logits[:, part],
            targets[:, place],
            target_weight=method.target_weight,
            nontarget_weight=method.nontarget_weight,
            temperature=method.temperature,
        )
        for place, part in enumerate((slice(0, 3), slice(3, 5)))
    ]
    assert float(losses.parts["dkd"]) == pytest.approx(float(0.25 * own[0] + 2 * own[1]), rel=1e-6)


def test_a_teacher_of_one_column_teaches_that_one():
    student, teacher = outputs(1, "student"), outputs(2, "teacher", classes=2)
    made = objective("hinton", teacher=2, columns=("speaker",))
    losses = made(student, teacher, batch())
    kd = zoo.functional.hinton(student.logits[:, 3:], teacher.logits, temperature=4.0)
    assert float(losses.parts["hinton"]) == pytest.approx(2 * float(kd), rel=1e-6)


def test_modules_of_a_method_are_those_of_each_column():
    made = objective("srrl")
    assert sorted(made.parts) == ["srrl:digit", "srrl:speaker"]
    assert len(made.groups()) == 2
    assert sorted(objective("fitnet").parts) == ["fitnet"]


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("dml", "dml: looks at a network's gradients or other inputs"),
        ("simkd", "simkd: ships other parts than the student"),
        ("ab", "ab: trains in two stages"),
        ("cskd", "cskd: pairs each sample with another of its class"),
    ],
)
def test_methods_that_need_one_column_are_refused_by_name(method, fault):
    with pytest.raises(InputError, match=fault):
        objective(method)


SMALL = {
    "data": "parity", "teacher": "resnet20", "student": "resnet8", "recipe": "smoke", "epochs": 1, "seeds": 1, "val_fraction": 0.25,
    "limit": 400,
}  # fmt: skip


def test_one_student_learns_two_columns_and_its_tables_have_both(digits_with_parity, kdzoo):
    keep = zoo.Execution(threads=1, keep="predictions,student", allow_chance_teacher=True)
    board = zoo.bench(**SMALL, name="both", columns="digit,parity", methods="hinton,at", execution=keep)
    folder = digits_with_parity / "results" / "both"
    assert {"test_top1", "test_parity.top1", "test_parity.nll"} <= set(board)
    page = (folder / "leaderboard.md").read_text()
    assert "| test digit top-1 | test parity top-1 |" in page
    runs = [Store(folder).run(run_id) for run_id in Store(folder).ids()]
    assert sorted(run.id.partition("-")[0] for run in runs) == ["at", "hinton", "none"]
    for run in runs:
        result, plan = run.result(), run.read_plan()
        assert result["task"] == plan[0].data.task == "digit:10+parity:2"
        assert plan[0].student.classes == 12
        assert list(plan[1]["columns"]["parity"]) == ["even", "odd"]
        with np.load(run.predictions) as kept:
            for name, key in (("", "test"), ("parity.", "test.parity")):
                right = (kept[key].argmax(1) == kept[f"{key}_targets"]).mean()
                assert result["last"]["test"][f"{name}top1"] == pytest.approx(right)
        if run.id.startswith("hinton"):
            assert 0 <= result["last"]["test"]["parity.agreement"] <= 1
    assert kdzoo("evaluate", runs[0].path).status == 0, "its kept weights give the numbers of its result"
    (parity_of_table,) = {round(value, 12) for value in pd.read_csv(folder / "runs.csv").query("method == 'none'")["test_parity.top1"]}
    alone = next(run for run in runs if run.id.startswith("none"))
    assert alone.result()["last"]["test"]["parity.top1"] == pytest.approx(parity_of_table)

    # a bench of the first column alone has the ids of a bench that names no column, and is compared in the primary column
    zoo.bench(**SMALL, name="digit", columns="digit", methods="hinton", execution=keep)
    zoo.bench(**SMALL, name="plain", methods="hinton", execution=keep)
    ids = [Store(digits_with_parity / "results" / name).ids() for name in ("digit", "plain")]
    assert ids[0] == ids[1]
    assert not set(ids[0]) & {run.id for run in runs}
    joined = compare([folder, digits_with_parity / "results" / "digit"])
    assert list(joined.frame["method"]) == ["at", "hinton", "none"]
    kept_teacher = next(
        run_id for run_id in teacher_store().ids() if teacher_store().run(run_id).read_plan()[0].data.task == "classification"
    )

    # the teacher of the first column teaches that column of a student of both
    zoo.bench(**{**SMALL, "teacher": kept_teacher}, name="some", columns="parity,digit", methods="hinton", execution=keep)
    folder = digits_with_parity / "results" / "some"
    run = next(Store(folder).run(run_id) for run_id in Store(folder).ids() if run_id.startswith("hinton"))
    assert run.read_plan()[0].teacher.columns == ("digit",)
    result = run.result()
    assert result["teacher"]["test"]["top1"] is None
    assert result["teacher"]["test"]["digit.top1"] > 0
    assert result["last"]["test"]["agreement"] is None
    assert 0 <= result["last"]["test"]["digit.agreement"] <= 1
    with pytest.raises(InputError, match="expected benches of one task"):
        compare([folder, digits_with_parity / "results" / "both"])


def test_a_bench_trains_a_teacher_of_one_column_and_refits_it(digits_with_parity, kdzoo):
    words = ("--data", "digits", "--limit", 300)
    refused = kdzoo("bench", *words, "--columns", "class", "--epochs", 1)
    assert (refused.status, "digits has one column of targets" in refused.err) == (2, True)
    options = {**SMALL, "teacher": "resnet20@columns=parity", "refit": True}
    keep = zoo.Execution(threads=1, allow_chance_teacher=True)
    zoo.bench(**options, name="taught", columns="0.7*digit,0.3*parity", methods="hinton", execution=keep)
    folder = digits_with_parity / "results" / "taught"
    plans = [Store(folder).run(run_id).read_plan()[0] for run_id in Store(folder).ids()]
    taught = [run for run in plans if run.teacher is not None]
    assert len(taught) == 2, "the sweep's and the refit's"
    for run in taught:
        assert (run.teacher.columns, run.teacher.classes, run.data.task) == (("parity",), 2, "0.7*digit:10+0.3*parity:2")
        trained = teacher_store().run(run.teacher.start.removeprefix("run:"))
        assert trained.read_plan()[0].data.task == "parity:2"
        assert json.loads((trained.path / "run.json").read_text())["about"]["class_names"] == ["even", "odd"]
    with pytest.raises(InputError, match="@columns=digit: expected some of the columns that the student learns, a single one"):
        zoo.bench(**{**SMALL, "teacher": "resnet20@columns=digit"}, name="wrong", columns="parity", methods="hinton")
