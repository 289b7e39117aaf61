"""Doses: the size of a term's gradient beside that of cross-entropy, measured once, kept, and what it makes of a plan."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from edited import write_edited
from registries import registered_for_a_while

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.contract.plugins import load_plugins
from kdzoo.contract.register import register
from kdzoo.data.epoch import order
from kdzoo.errors import InputError
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.network import freeze
from kdzoo.models.placement import Placement
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.events import Event, Note, RunDone
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.doses import read_doses, weight_for
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.requests import parse_request, why_no_dose
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.settings import setting_text
from kdzoo.suite.run.bench import refit_plan, run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.planned_files import keep_reused
from kdzoo.suite.run.prepare import Prepared, prepare
from kdzoo.teachers.teacher import live_teacher
from kdzoo.training.doses import BATCHES, NoRatio, Ratio, measure, warm_up_steps
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import Member
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_networks import load_network

SMALL = {
    "data": "digits",
    "pairs": ["digits"],
    "recipe": "digits",
    "epochs": 4,
    "limit": 256,
    "jobs": 1,
    "threads": 1,
    "allow_chance_teacher": True,
}


def config(results: Path | str, **more) -> BenchConfig:
    return bench_config({**SMALL, "results": str(results), "name": "small", **more}, None)


def train(prepared: Prepared) -> tuple[list[Event], dict[str, str]]:
    """The bench in this process: its events, and what failed."""
    events: list[Event] = []
    outcome = run(prepared, Here(), events.append, retry_failed=False)
    return events, outcome.failed


def units(method: str, tmp_path: Path, **more) -> list[LocatedRun]:
    """What has to be measured for a method, as a plan says."""
    made = plan(config(tmp_path, methods=[method], doses=[1], **more))
    return [
        LocatedRun(one.run, RunFolder(tmp_path / one.run.id), one.about["paths"])
        for one in made.unmeasured
        if one.run.objective.label == method
    ]


def measured(located_runs: list[LocatedRun], hidden: Callable[[torch.Tensor], torch.Tensor] | None = None, **more):
    """The ratios of runs under a teacher that nobody trained, by method; the images at the places `hidden` have no label."""
    images, parts = load_run_data(located_runs[0])
    if hidden is not None:
        targets = parts.train.targets.index_fill(0, hidden(parts.train.targets), -1)
        parts = replace(parts, train=replace(parts.train, targets=targets))
    execution = Placement(WorkerOptions(teacher_cache=0))
    spec = located_runs[0].run.teacher or located_runs[0].run.student
    untrained = spec.model_copy(update={"start": "random"})
    network = freeze(load_network(untrained, images, side=8, seed=5, path=None, modules=Modules()))
    shape = (1, 8, 8)
    teacher = live_teacher(
        network, "untrained", network_cost(network, shape), parts.truncate_eval(1), located_runs[0].run.recipe.augment, execution
    )
    found = measure(located_runs, images, parts, teacher, measure_shapes(network, shape), execution, Modules(), **more)
    return {located.run.objective.label: found[located.run.id] for located in located_runs}, network, images, parts


def test_the_ratio_is_that_of_a_plain_loop_of_sgd_and_autograd(tmp_path):
    """Cross-entropy for 5 % of the steps with torch's SGD at the base rate, then 16 batches of gradients, everything by hand."""
    (located,) = units("at", tmp_path)
    found, teacher, images, parts = measured([located])
    recipe, train_images, labels = located.run.recipe, parts.train.images, parts.train.targets
    student = load_network(located.run.student, images, side=8, seed=0, path=None, modules=Modules(), head="fresh").train()
    parameters = list(student.parameters())
    sgd = torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay)
    an_epoch = -(-len(labels) // recipe.batch_size)
    steps = an_epoch * recipe.epochs
    batches = [
        order(len(labels), 0, epoch)[i * recipe.batch_size : (i + 1) * recipe.batch_size] for epoch in range(9) for i in range(an_epoch)
    ]
    batches = [batch for batch in batches if len(batch) > 1]

    def attention(stage):
        powers = stage.pow(2).mean(1).flatten(1)
        return powers / powers.norm(dim=1, keepdim=True)

    def norm(loss):
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return sum(float(g.double().pow(2).sum()) for g in gradients if g is not None)

    warm_up = max(1, steps // 20)
    for batch in batches[:warm_up]:
        sgd.zero_grad()
        F.cross_entropy(student(train_images[batch], Need.LOGITS).logits, labels[batch]).backward()
        sgd.step()
    of_term, of_task = [], []
    for batch in batches[warm_up : warm_up + 16]:
        ours = student(train_images[batch], Need.LOGITS | Need.STAGES)
        with torch.no_grad():
            theirs = teacher(train_images[batch], Need.STAGES)
        pairs = list(zip(ours.stages, theirs.stages, strict=True))
        of_term.append(norm(sum((attention(s) - attention(t)).pow(2).mean() for s, t in pairs)))
        of_task.append(norm(F.cross_entropy(ours.logits, labels[batch])))
    expected = (sum(of_term) / sum(of_task)) ** 0.5
    assert found["at"].warm_up_steps == warm_up
    assert found["at"].value == pytest.approx(expected, rel=1e-4)


def test_what_is_measured_together_changes_no_bit_of_a_ratio(tmp_path):
    """A method with a memory bank, one that runs the networks itself, one with a module, and one of the student alone."""
    located_runs = [located for method in ("crd", "sobolev", "fitnet", "dml", "cskd") for located in units(method, tmp_path)]
    together = measured(located_runs)[0]
    assert {name: ratio.value > 0 for name, ratio in together.items()} == dict.fromkeys(together, True)
    for located in located_runs:
        alone = measured([located])[0]
        assert alone == {located.run.objective.label: together[located.run.objective.label]}


def test_a_module_learns_from_the_first_batch_with_a_label_on(tmp_path):
    """A module that learns nothing is only scaled, by its weight decay; one that learns turns away from where it started."""
    (located,) = units("fitnet", tmp_path, epochs=40)

    def turned(hidden: Callable[[torch.Tensor], torch.Tensor]) -> float:
        kept = []

        def keep(member: Member, located: LocatedRun) -> None:
            kept.append((member, torch.nn.utils.parameters_to_vector(member.objective.parameters()).clone()))

        found, *_ = measured([located], hidden, prepare_member=keep)
        ((member, before),) = kept
        assert isinstance(found["fitnet"], Ratio)
        after = torch.nn.utils.parameters_to_vector(member.objective.parameters())
        return 1 - F.cosine_similarity(before, after, dim=0).item()

    size = located.run.recipe.batch_size
    first = order(len(load_run_data(located)[1].train.targets), 0, 0)[:size]
    assert turned(lambda targets: first) > 1e-4
    assert turned(lambda targets: torch.arange(len(targets))) < 1e-6, "without any label there is no dose to learn at"


def test_peers_are_measured_under_the_dropout_that_they_train_with(tmp_path):
    rates = {"recipe.dropout": 0.5, "recipe.input_dropout": 0.2, "teacher_recipe.dropout": 0, "teacher_recipe.input_dropout": 0}
    kept: list[Member] = []
    located_runs = units("dml", tmp_path, pairs=[], teacher="mlp_24", student="mlp_16_12", set=rates)
    measured(located_runs, prepare_member=lambda member, located: kept.append(member))
    (student, peer) = kept[0].learners
    for network in (student, peer):
        assert [part.p for part in network.modules() if isinstance(part, torch.nn.Dropout)] == [0.2, 0.5, 0.5]


def test_a_method_is_measured_at_the_epoch_that_its_batches_are_of(tmp_path):
    epochs: list[int] = []

    def clocked(student, teacher, batch):
        epochs.append(batch.clock.epoch)
        return (student.logits - teacher.logits).square().mean()

    with registered_for_a_while():
        register("clocked")(clocked)
        (located,) = units("clocked", tmp_path, epochs=30)
        found, _, _, parts = measured([located])
    assert isinstance(found["clocked"], Ratio)
    an_epoch = math.ceil(len(parts.train.targets) / located.run.recipe.batch_size)
    begin = warm_up_steps(30 * an_epoch)
    assert epochs[-BATCHES:] == [step // an_epoch for step in range(begin, begin + BATCHES)]


def test_the_warm_up_is_5_per_cent_of_the_steps_and_200_at_most():
    assert [warm_up_steps(steps) for steps in (1, 720, 4000, 100_000)] == [1, 36, 200, 200]
    assert BATCHES == 16


@pytest.mark.parametrize(("dose", "ratio", "weight"), [(0.3, 0.0145, 21.0), (1.0, 0.029, 34.0), (0.1, 123.0, 0.00081), (3.0, 1.0, 3.0)])
def test_a_weight_is_the_dose_over_the_ratio_to_two_digits(dose, ratio, weight):
    assert weight_for(dose, ratio) == weight


METHODS = ["at", "ft", "fitnet_two_stage", "crd", "byot", "at+hinton", "1*ce+2*hinton", "ab", "simkd"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A bench in doses of methods of every kind, trained to its end in this process."""
    place = tmp_path_factory.mktemp("doses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(place / "cache"))
        asked = config(place, methods=METHODS, doses=[0.1, 1], seeds=[0])
        events, failed = train(prepare(asked))
        assert failed == {}
        yield asked, events


@pytest.fixture
def folder(bench, monkeypatch) -> Path:
    monkeypatch.setenv("KDZOO_CACHE", str(Path(bench[0].results) / "cache"))
    return Path(bench[0].results) / "small"


def runs_of(folder: Path, label: str) -> list:
    return [record for record in read_bench(folder).records if record.method == label]


@pytest.mark.parametrize("method", ["at", "ft", "fitnet_two_stage", "crd", "byot", "hinton", "at+hinton"])
def test_each_kind_of_method_trains_at_the_weights_of_its_doses(folder, method):
    """Plain, of two stages, with a memory bank, of the student alone, and sums, each of whose terms gets the dose."""
    ratios = read_doses(folder)
    found = runs_of(folder, method)
    swept = [record for record in found if {dose["dose"] for dose in record.about["doses"].values()} <= {0.1, 1}]
    assert sorted(dose["dose"] for record in swept for dose in record.about["doses"].values()) == sorted(
        [0.1, 1] * (len(method.split("+")))
    )
    for record in swept:
        assert record.run.objective.task == 1
        for term in record.run.objective.terms:
            dose = record.about["doses"][term.method]
            assert ratios[dose["measured"]].method == term.method
            assert term.coefficient == float(f"{dose['dose'] / ratios[dose['measured']].ratio:.1e}")


def test_hinton_behind_a_first_stage_is_measured_there(folder):
    """fitnet_two_stage goes on with Hinton's loss from another student than hinton alone, so that it has a ratio of its own."""
    plain, behind = ({record.about["doses"]["hinton"]["measured"] for record in runs_of(folder, m)} for m in ("hinton", "fitnet_two_stage"))
    assert len(plain) == len(behind) == 1
    assert plain != behind


def test_what_has_no_dose_trains_as_published_and_says_why(bench, folder):
    notes = [event.text for event in bench[1] if isinstance(event, Note)]
    told = {label: [note for note in notes if note.startswith(f"no dose for {label}")] for label in ("1*ce+2*hinton", "ab", "simkd")}
    assert {label: len(lines) for label, lines in told.items()} == {"1*ce+2*hinton": 1, "ab": 1, "simkd": 1}
    assert "an exact sum has its own weights" in told["1*ce+2*hinton"][0]
    assert "its second stage is cross-entropy alone" in told["ab"][0]
    assert "published without cross-entropy" in told["simkd"][0]
    assert [record.run.objective.terms[0].coefficient for record in runs_of(folder, "simkd")] == [1.0]


def test_every_method_of_the_zoo_has_a_dose_or_a_reason():
    reasons = {name for name in REGISTRY.names() if why_no_dose(parse_request(name))}
    assert reasons == {"ab", "fsp", "ft_paraphraser", "norm", "pskd", "simkd"}


def test_a_dose_and_the_weight_that_it_comes_to_are_one_run(bench, folder):
    for record in runs_of(folder, "at"):
        factor = record.run.objective.terms[0].coefficient / 1000
        made = plan(config(bench[0].results, methods=["at"], weights=[factor], seeds=[0], name="other"))
        assert record.id in {planned.run.id for planned in made.students}


def test_the_measured_weights_are_taken_ever_after(bench, folder, monkeypatch):
    """A resume reads what was written, whatever measuring again would give; where the file is lost, what the runs record."""
    before = {planned.run.id for planned in plan(bench[0]).students}
    assert plan(bench[0]).unmeasured == ()
    assert before == {record.id for record in read_bench(folder).records}
    file = folder / "doses.json"
    whole = file.read_text()
    try:
        file.unlink()
        assert {planned.run.id for planned in plan(bench[0]).students} == before
        content = json.loads(whole)
        for entry in content["doses"].values():
            entry["ratio"] *= 3
        file.write_text(json.dumps(content))
        with pytest.raises(
            InputError, match=r"doses\.json: damaged \(its content has changed .*delete it to have the doses measured again"
        ):
            plan(bench[0])
        content.pop("digest")
        write_edited(file, content)
        other = [planned for planned in plan(bench[0]).students if planned.run.objective.label == "at"]
        assert {planned.run.objective.terms[0].coefficient for planned in other} == {
            float(f"{dose / (3 * json.loads(whole)['doses'][key]['ratio']):.1e}")
            for key in json.loads(whole)["doses"]
            if key.startswith("at-")
            for dose in (0.1, 1)
        }
        file.write_text('{"doses": {"at-1": {"ratio": 0}}}')
        with pytest.raises(InputError, match=r"doses\.json: damaged .*delete it to have the doses measured again"):
            plan(bench[0])
    finally:
        file.write_text(whole)


def test_another_bench_takes_what_was_measured_of_the_same_thing(bench, folder, tmp_path):
    asked = config(tmp_path, methods=["at", "rkd"], doses=[0.1], seeds=[0, 1], doses_from=str(folder))
    made = plan(asked)
    assert [planned.run.objective.label for planned in made.unmeasured] == ["rkd"]
    assert {p.run.id for p in made.students if p.run.objective.label == "at" and p.run.seed == 0} < {r.id for r in runs_of(folder, "at")}
    keep_reused(prepare(asked))
    assert {one.method for one in read_doses(tmp_path / "small").values()} == {"at", "hinton"}
    assert read_doses(tmp_path / "small").items() < read_doses(folder).items()
    longer = plan(config(tmp_path, methods=["at"], doses=[0.1], seeds=[0], epochs=5, doses_from=str(folder)))
    assert {planned.run.objective.label for planned in longer.unmeasured} == {"at", "hinton"}
    with pytest.raises(InputError, match=r"doses_from: .*expected a bench's folder with a doses\.json"):
        plan(config(tmp_path, methods=["at"], doses=[0.1], doses_from=str(tmp_path)))


def test_a_single_term_of_a_sum_can_have_a_dose_of_its_own(bench, folder):
    """`at.dose` sets at's weight; hinton keeps its published one, and with doses besides it has theirs."""
    grid = {"at.dose": [0.1]}
    made = plan(config(bench[0].results, methods=["at+hinton"], grid=grid, seeds=[0]))
    (objective,) = {
        p.run.objective.model_dump_json(): p.run.objective for p in made.students if p.run.objective.label == "at+hinton"
    }.values()
    weights = {term.method: term.coefficient for term in objective.terms}
    of_at = {term.coefficient for r in runs_of(folder, "at") for term in r.run.objective.terms if r.about["doses"]["at"]["dose"] == 0.1}
    assert weights == {"at": of_at.pop(), "hinton": 0.9}
    made = plan(config(bench[0].results, methods=["at+hinton"], grid=grid, doses=[1], seeds=[0]))
    (planned,) = [p for p in made.students if p.run.objective.label == "at+hinton"]
    assert {name: dose["dose"] for name, dose in planned.about["doses"].items()} == {"at": 0.1, "hinton": 1}


def test_a_refit_takes_the_weights_of_the_sweep(bench, folder):
    again = refit_plan(prepare(bench[0]))
    trained = {r.setting_key: r.about.get("doses") for r in read_bench(folder).records}
    chosen = [(p.run.objective.model_dump(mode="json"), p.about.get("doses")) for p in again.students]
    assert {"at", "ft", "crd"} < {p.run.objective.label for p in again.students}
    assert [trained[canonical_json(objective)] for objective, _ in chosen] == [doses for _, doses in chosen]


def test_a_refit_can_have_more_seeds_than_the_sweep(bench, folder):
    again = refit_plan(prepare(config(bench[0].results, methods=METHODS, doses=[0.1, 1], seeds=[0], refit_seeds=3)))
    seeds = [planned.run.seed for planned in again.students if planned.run.objective.label == "at"]
    assert sorted(seeds) == [1, 2, 3]


def test_a_setting_says_weight_and_dose(folder):
    words = {setting_text(record.run, record.about) for record in runs_of(folder, "at")}
    weights = {
        dose: next(r.run.objective.terms[0].coefficient for r in runs_of(folder, "at") if r.about["doses"]["at"]["dose"] == dose)
        for dose in (0.1, 1)
    }
    assert words == {f"weight {weights[0.1]:g} (dose 0.1)", f"weight {weights[1]:g} (dose 1)"}
    table = (folder / "leaderboard.md").read_text()
    assert any(text in table for text in words)


def test_a_dose_that_a_published_weight_comes_to_is_shown_too(bench):
    """Where the ratio is known, every setting says its dose: 1000 times the ratio for at."""
    ratio = next(one.ratio for one in read_doses(Path(bench[0].results) / "small").values() if one.method == "at")
    made = plan(config(bench[0].results, methods=["at"], seeds=[0]))
    (planned,) = [p for p in made.students if p.run.objective.label == "at"]
    assert setting_text(planned.run, planned.about) == f"weight 1000 (dose {float(f'{1000 * ratio:.2g}'):g})"


def test_0_is_the_student_alone(bench):
    made = plan(config(bench[0].results, methods=["at"], doses=[0, 0.1], seeds=[0]))
    assert sorted(planned.run.objective.label for planned in made.students) == ["at", "hinton", "none"]
    assert made.duplicates == {"alpha = 0 or weight 0 is the student alone": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"doses": [1], "alphas": [0.5]}, "doses: a dose sets the weight, and so do alphas; give one of them"),
        ({"grid": {"at.dose": [1]}, "weights": [3]}, "grid.at.dose: a dose sets the weight, and so do weights; give one of them"),
        ({"doses": [1], "tune": 3}, "tune: tries the settings of each method's own search list and would ignore doses"),
        ({"grid": {"at.dose": ["low"]}}, "grid.at.dose: expected numbers >= 0, got 'low'"),
        ({"methods": ["simkd"], "grid": {"simkd.dose": [1]}}, "grid.simkd.dose: simkd: it is published without cross-entropy"),
    ],
)
def test_what_a_dose_cannot_stand_beside(place, options, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(".", r"\.")):
        plan(config(place, **{"methods": ["at"], **options}))


def test_a_negative_dose_is_refused():
    with pytest.raises(InputError, match="doses: expected numbers >= 0, got -1"):
        config("results", doses=[-1])


def test_a_search_list_tries_what_was_published_first_and_then_doses(bench):
    made = plan(config(bench[0].results, methods=["at", "rkd"], tune=3, seeds=[0]))
    at = [planned for planned in made.students if planned.run.objective.label == "at"]
    assert at[0].run.objective.terms[0].coefficient == 1000
    assert [planned.about["doses"]["at"]["dose"] for planned in at[1:]] == [0.1, 0.3]
    assert [planned.run.objective.label for planned in made.unmeasured] == ["rkd"]
    assert [(planned.provisional, planned.run.objective.label) for planned in made.students if planned.provisional] == [(True, "rkd")] * 2
    assert {planned.run.id for planned in made.students if planned.provisional}.isdisjoint(
        p.run.id for p in made.students if not p.provisional
    )


@pytest.mark.parametrize(
    ("method", "doses"),
    [("at", [0.1, 0.3, 0.03, 1, 3]), ("rkd", [3, 1, 0.1, 0.3, 0.03]), ("mlld", [1, 0.3, 0.1, 0.03, 3]), ("sdd", [0.1, 0.3, 0.03, 1, 3])],
)
def test_the_order_of_doses_is_what_the_digits_told(method, doses):
    first, *rest = REGISTRY.get(method).card.search
    assert (first.dose, first.weight, first.alpha) == (None, 1.0, None)
    assert [setting.dose for setting in rest] == doses


def test_every_method_beside_cross_entropy_tries_all_five_doses_or_is_swept_otherwise():
    """Hinton's loss and its standardised form are swept in temperature and alpha, embed and tokens in their distance too.

    What has no dose is swept in factors on its weight.
    """
    without = {name for name in REGISTRY.names() if {0.03, 0.1, 0.3, 1, 3} - {setting.dose for setting in REGISTRY.get(name).card.search}}
    assert without - {name for name in REGISTRY.names() if REGISTRY.get(name).card.no_dose} == {"hinton", "logit_std", "embed", "tokens"}


NO_NUMBER = """
import kdzoo

@kdzoo.register("blind")
def blind(student, teacher, batch):
    return teacher.logits.pow(2).mean() + 0 * student.logits.sum()
"""


def test_a_method_without_a_gradient_fails_alone_and_is_told(place):
    (place / "mine.py").write_text(NO_NUMBER)
    asked = config("results", methods=["at", "blind"], doses=[0.1], seeds=[0], plugin=["mine.py"])
    events, failed = train(prepare(asked))
    assert failed == {
        "blind by doses": "its dose cannot be measured: its loss sends no gradient to the student's network",
    }
    assert sorted({event.label for event in events if isinstance(event, RunDone) and event.role == "student"}) == ["at", "hinton", "none"]
    assert [event.text for event in events if isinstance(event, Note) and "blind: its dose" in event.text]


OF_A_GRADIENT = """
import kdzoo
import torch
from kdzoo import Need


@kdzoo.register("salient", needs=Need.STAGES | Need.LOGITS | Need.NETWORK)
class Salient(kdzoo.Method):
    def loss(self, student, teacher, batch, module):
        (gradient,) = torch.autograd.grad(student.logits.sum(), student.stages[-1], create_graph=True)
        return gradient.pow(2).mean() + student.stages[-1].pow(2).mean()
"""


def test_a_users_method_may_differentiate_class_scores_with_respect_to_a_stage(place, tmp_path):
    """A copy of the outputs, as methods get that share them, would be no part of the way from the stage to the class scores."""
    (place / "mine.py").write_text(OF_A_GRADIENT)
    load_plugins(["mine.py"])
    ratios = measured(units("salient", tmp_path, plugin=["mine.py"]))[0]
    assert ratios["salient"].value > 0


@pytest.mark.parametrize(
    ("of_term", "of_task", "message"),
    [(0.0, 1.0, "its loss sends no gradient"), (float("nan"), 1.0, "NaN or infinite"), (1.0, 0.0, "cross-entropy sends no gradient")],
)
def test_a_ratio_that_is_no_positive_number_says_what_it_is(of_term, of_task, message):
    with pytest.raises(NoRatio, match=message):
        _ = Ratio(of_term, of_task, 1).value


def test_a_dry_run_says_what_is_measured_at_the_start(kdzoo):
    said = kdzoo("bench", "--methods", "at", "--doses", "0.1,1", "--quick", "--dry-run")
    assert "at: dose 0.1, dose 1\n" in said.out, "the doses asked for, and no weight that nobody has measured"
    assert "doses         measured before training, for at, hinton" in said.out
    assert not os.path.exists("results")
