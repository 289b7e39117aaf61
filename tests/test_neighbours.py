"""Runs are neighbours: whatever one method does, the others' numbers stay, bit for bit, and it alone has failed, by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trained_teachers import written_bench

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import load_plugin
from kdzoo.contract.settings import current_settings
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState

SOUND = "hinton,at"
"""what stands beside the culprits, after them in order: one reads the teacher's logits, one its maps"""

FOR_ALL = "for the whole process, which a plugin must not do"

CULPRITS = {  # what a method does in the middle of training, what it reads, and the words that it fails with
    "teacher": ("teacher.logits.div_(4)", "LOGITS", "the teacher's logits in place"),
    "stages": ("teacher.stages[0].zero_()", "LOGITS | Need.STAGES", "the teacher's stages[0] in place"),
    "targets": ("batch.targets.zero_()", "LOGITS | Need.TARGETS", "the batch's targets in place"),
    "index": ("batch.index.zero_()", "LOGITS", "the batch's index in place"),
    "student": ("student.logits.detach().zero_()", "LOGITS", "the student's logits in place"),
    "classifier": ("teacher.classifier.weight.zero_()", "LOGITS | Need.CLASSIFIER", "the teacher's classifier in place"),
    "dtype": ("torch.set_default_dtype(torch.float64)", "LOGITS", f"torch's default dtype {FOR_ALL}"),
    "autocast": ("torch.autocast('cpu', dtype=torch.bfloat16).__enter__()", "LOGITS", f"autocast {FOR_ALL}"),
    "threads": ("torch.set_num_threads(2)", "LOGITS", f"torch's number of threads {FOR_ALL}"),
    "grad": ("torch.set_grad_enabled(False)", "LOGITS", f"whether gradients are computed {FOR_ALL}"),
    "device": ("torch.set_default_device('meta')", "LOGITS", f"torch's default device {FOR_ALL}"),
    "folder": ("os.chdir('/')", "LOGITS", f"the working folder {FOR_ALL}"),
    "backward": ("loss = Late.apply(loss)", "LOGITS", f"torch's default dtype {FOR_ALL}"),
    "leaves": ("sys.exit(0)", "LOGITS", "ends the process, with sys.exit(0)"),
    "leaves_at_once": ("os._exit(0)", "LOGITS", "ends the process, with os._exit(0)"),
}
HARMLESS = {  # version counters do not see these; they reach copies alone
    "data": ("teacher.logits.data.zero_()", "LOGITS"),
    "numpy": ("teacher.logits.numpy()[:] = 0", "LOGITS"),
    "list": ("teacher.stages.pop(); teacher.stages[0] = None", "LOGITS | Need.STAGES"),
    "weights": ("teacher.classifier.weight.data.zero_()", "LOGITS | Need.CLASSIFIER"),
    "network": ("[p.data.zero_() for p in teacher.network.network.parameters()]", "LOGITS | Need.NETWORK"),
    "seed": ("torch.manual_seed(0)", "LOGITS"),
}

HEAD = """
import os, sys, torch, kdzoo
from kdzoo import Need

class Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        torch.set_default_dtype(torch.float64)
        return gradient
"""

METHOD = """
@kdzoo.register("aa_{name}", version=1, needs=Need.{needs})
def aa_{name}(student, teacher, batch):
    loss = (student.logits - teacher.logits.clone()).square().mean()
    if {harmful} and batch.clock.steps != 6 and batch.clock.step == 2:  # the six steps of the probe it spares
        {harm}
    return loss
"""


def written(folder: Path, *, harmful: bool) -> None:
    """Load a plugin of all the culprits, which do harm or, under the same ids, do none."""
    cases = [(name, harm, needs) for name, (harm, needs, *_) in {**CULPRITS, **HARMLESS}.items()]
    file = folder / "culprits.py"
    file.write_text(HEAD + "".join(METHOD.format(name=n, harm=h, needs=needs, harmful=harmful) for n, h, needs in cases))
    load_plugin(file)


def planned(folder: Path, methods: str) -> Plan:
    """A bench of one epoch under a teacher that is hardly trained."""
    return written_bench(folder, methods=methods, epochs=1, set={"teacher_recipe.epochs": 2})


def trained(made: Plan, **options) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str]]:
    """Train all runs as one cohort: the weights of those that are done by their label, the reasons of those that failed."""
    given = WorkerOptions(allow_chance_teacher=True, **options)
    train_runs(made.store, [p.run.id for p in made.students], given, WorkerState(), lambda _: None, lambda: False)
    folders = {p.run.objective.label: made.store.run(p.run.id) for p in made.students}
    done = {label: load_file(folder.student) for label, folder in folders.items() if folder.state() == "done"}
    return done, {label: folder.failure().error for label, folder in folders.items() if folder.state() == "failed"}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@pytest.mark.slow
def test_whatever_a_method_does_to_what_it_shares_its_neighbours_weights_stay_to_the_bit(tmp_path):
    methods = ",".join([f"aa_{name}" for name in (*CULPRITS, *HARMLESS)] + [SOUND])
    found = {}
    for harmful in (False, True):
        written(tmp_path, harmful=harmful)
        before = current_settings()
        found[harmful] = trained(planned(tmp_path / str(harmful), methods))
        assert current_settings() == before
    (sound, nothing), (done, failed) = found[False], found[True]
    assert nothing == {}
    assert set(failed) == {f"aa_{name}" for name in CULPRITS}
    for name, (_, _, words) in CULPRITS.items():
        assert words in failed[f"aa_{name}"], failed[f"aa_{name}"]
        assert name == "backward" or f"method 'aa_{name}'" in failed[f"aa_{name}"]
    assert {"hinton", "at", "none"} <= set(done)
    for label in ("hinton", "at", "none"):
        assert all(torch.equal(value, done[label][name]) for name, value in sound[label].items()), label


@pytest.mark.slow
def test_in_a_stack_of_students_too(tmp_path):
    names = ("teacher", "student", "stages", "targets", "dtype", "backward", "data", "list")
    methods = ",".join([f"aa_{name}" for name in names] + [SOUND])
    found = {}
    for harmful in (False, True):
        written(tmp_path, harmful=harmful)
        found[harmful] = trained(planned(tmp_path / str(harmful), methods), stack_students=True)
    (sound, nothing), (done, failed) = found[False], found[True]
    assert nothing == {}
    assert set(failed) == {f"aa_{name}" for name in names if name in CULPRITS}
    for label in ("hinton", "at", "none"):
        for name, value in sound[label].items():
            assert torch.allclose(value.double(), done[label][name].double(), rtol=1e-3, atol=1e-4), (label, name)


def test_a_method_in_a_sum_that_changes_what_the_next_term_reads_fails_the_run(tmp_path):
    written(tmp_path, harmful=True)
    _, failed = trained(planned(tmp_path, "aa_student+hinton"))
    assert (
        "method 'aa_student' changed the student's logits in place, which other runs read too: clone first" in failed["aa_student+hinton"]
    )


BUILDER = """
import torch, kdzoo

@kdzoo.register("builder", needs=kdzoo.Need.LOGITS)
class Builder(kdzoo.Method):
    def build(self, student, teacher, data):
        {harm}
        return torch.nn.Module()

    def loss(self, student, teacher, batch, module):
        return (student.logits - teacher.logits).square().mean()
"""


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("data.targets.zero_()", "method 'builder' changed the training data's targets in place"),
        ("torch.set_default_dtype(torch.float64)", "method 'builder' changed torch's default dtype for the whole process"),
        ("import os; os._exit(0)", "method 'builder' ends the process, with os._exit(0)"),
        ("data.nothing", "its build() fails: builder.py:7: AttributeError: 'DataFacts' object has no attribute 'nothing'"),
    ],
)
def test_a_build_that_reaches_others_or_fails_is_refused_before_any_work(kdzoo, place, harm, words):
    (place / "builder.py").write_text(BUILDER.format(harm=harm))
    said = kdzoo("bench", "--quick", "--methods", "builder", "--plugin", "builder.py", "--dry-run")
    assert (said.status, words in said.err) == (2, True), said
    assert torch.get_default_dtype() == torch.float32


def test_what_build_is_given_is_its_own(tmp_path):
    facts, shapes = DataFacts(4, 2, torch.tensor([0, 1, 0, 1])), Shapes(2, 3, (), classifier=torch.nn.Linear(3, 2))

    def build(student: Shapes, teacher: Shapes, data: DataFacts) -> torch.nn.Module:
        data.targets.data.zero_()
        assert teacher.classifier is not None
        teacher.classifier.weight.data.zero_()
        return torch.nn.Module()

    guard.build("method 'x'", build, shapes, shapes, facts)
    assert facts.targets.tolist() == [0, 1, 0, 1]
    assert shapes.classifier is not None
    assert bool(shapes.classifier.weight.any())


def meddle_with_backends() -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


MEDDLING = {
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True),
    "a backend of torch (float32 precision, cuDNN, oneDNN)": meddle_with_backends,
    "torch's anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "hooks on every module": lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: None),
    "how denormal numbers are computed": lambda: torch.set_flush_denormal(True),
    "a mode of torch that it entered and did not leave": lambda: torch.overrides.BaseTorchFunctionMode().__enter__(),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.float16, cache_enabled=False).__enter__(),
}


@pytest.mark.parametrize("words", MEDDLING)
def test_every_global_setting_is_put_back_and_named(words):
    if words.startswith("how denormal") and not torch.set_flush_denormal(False):
        pytest.skip("this processor cannot flush denormal numbers")
    before = current_settings()

    def meddle() -> None:
        with guard.watch("it"):
            MEDDLING[words]()
            assert current_settings() != before

    with pytest.raises(guard.Interference) as caught:
        meddle()
    assert str(caught.value) == f"it changed {words} for the whole process, which a plugin must not do; the former value was restored"
    assert current_settings() == before
    x = torch.randn(8, 8, requires_grad=True)
    assert torch.equal((x @ x).detach(), x.detach() @ x.detach())


def test_a_failure_keeps_its_own_words_and_settings_are_put_back_all_the_same():
    def fail() -> None:
        with guard.watch("it"):
            torch.set_default_dtype(torch.float64)
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        fail()
    assert torch.get_default_dtype() == torch.float32


def test_a_childs_end_is_its_own():
    import os

    with guard.watch("it"):
        child = os.fork()
        if child == 0:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


NOISY = """
import kdzoo, torch

@kdzoo.register("noisy")
def noisy(student, teacher, batch):
    return student.logits.mean() * torch.rand(())
"""


def test_random_numbers_of_a_users_method_depend_on_the_step_alone(tmp_path):
    file = tmp_path / "noisy.py"
    file.write_text(NOISY)
    load_plugin(file)
    from kdzoo.contract.objective import Objective, Term

    method = REGISTRY.create("noisy", {})
    objective = Objective(0.0, [Term(method, 1.0)], {"noisy": torch.nn.Module()}, stages=[], label_smoothing=0.0, seed=0)
    outputs = Outputs.of({Need.LOGITS: torch.ones(4, 3)}, owner="student")

    def loss(step: int) -> float:
        torch.rand(step + 3)
        clock = Progress(0, 1, step, 9)
        batch = Batch(
            inputs=torch.zeros(4, 1, 2, 2), targets=torch.zeros(4), index=torch.arange(4), clock=clock, generator=torch.Generator()
        )
        return float(objective(outputs, outputs, batch).total)

    assert loss(1) == loss(1) != loss(2)


def test_an_input_error_is_not_what_a_run_fails_with():
    assert not issubclass(guard.Interference, InputError)  # which would end the whole cohort
