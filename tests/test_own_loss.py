# ruff: noqa: E501  (a plugin and what is said of it read best in one line)
"""Wrong losses as users write them: each is refused in words that say what was wrong, where, and what to write instead."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kdzoo.contract.plugins import load_plugin
from kdzoo.contract.settings import current_settings
from kdzoo.runs.events import Note
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run import bench, fork, preflight
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\nimport kdzoo\n\n"
DISTANCE = "(student.logits - teacher.logits.detach()).square()"


def function(body: str, *, signature: str = "student, teacher, batch", decorator: str = "@kdzoo.register('mine')") -> str:
    """A plugin of one function; its body begins in line 8."""
    return f"{HEAD}{decorator}\ndef mine({signature}):\n    {body}\n"


def method(body: str, *, needs: str = "kdzoo.Need.LOGITS") -> str:
    """A plugin of one Method; its body begins in line 8."""
    lines = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f"{HEAD}@kdzoo.register('mine', needs={needs})\nclass Mine(kdzoo.Method):\n{lines}\n"


LOSS = "def loss(self, student, teacher, batch, module):\n    return "

REFUSED = {  # while the file is loaded, so that every command says the same
    "two_arguments": (
        function(f"return {DISTANCE}.mean()", signature="student, teacher"),
        "expected mine(student, teacher, batch, *, hyperparameters...), got the parameters ['student', 'teacher']",
    ),
    "hyperparameter_without_star": (
        function(f"return t * {DISTANCE}.mean()", signature="student, teacher, batch, t=4.0"),
        "put `*` before what is a hyper-parameter: mine(student, teacher, batch, *, t=4.0)",
    ),
    "keywords": (
        function(f"return {DISTANCE}.mean()", signature="student, teacher, batch, **kwargs"),
        "leave out **kwargs; every hyper-parameter has a name of its own, behind `*`",
    ),
    "no_default": (
        function(f"return t * {DISTANCE}.mean()", signature="student, teacher, batch, *, t: float"),
        "give t a default, or declare what it reads",
    ),
    "default_of_another_type": (
        function(f"return t * {DISTANCE}.mean()", signature="student, teacher, batch, *, t: float = '4'"),
        "the default of t: expected a valid number, got '4'",
    ),
    "misspelt_type": (
        function(f"return {DISTANCE}.mean()", signature="student, teacher, batch, *, t: flaot = 4.0"),
        "name 'flaot' is not defined; did you mean 'float'?",
    ),
    "logit": (function("return student.logit.mean()"), "file.py:8: AttributeError: student has no 'logit'; did you mean 'logits'?"),
    "features": (function("return student.features[0].mean()"), "student has no 'features'; did you mean 'stages'?"),
    "labels": (function("return F.cross_entropy(student.logits, batch.labels)"), "batch has no 'labels'; did you mean 'targets'?"),
    "outputs_as_tensors": (
        function("return F.mse_loss(student, teacher.detach())"),
        "it is not a tensor but holds several; write teacher.logits.detach",
    ),
    "misspelt_name": (
        function("return (student.logits - tacher.logits).mean()"),
        "file.py:8: NameError: name 'tacher' is not defined; did you mean 'teacher'?",
    ),
    "cuda": (
        function("return student.logits.to('cuda').mean()"),
        "Leave out .cuda() and device='cuda': student, teacher and batch are on the run's device already",
    ),
    "misspelt_need": (
        function("return 0", decorator="@kdzoo.register('mine', needs=kdzoo.Need.LOGIT)"),
        "kdzoo.Need has no LOGIT; did you mean 'LOGITS'?",
    ),
    "need_as_text": (
        function("return 0", decorator="@kdzoo.register('mine', needs='logits')"),
        "needs: expected needs=kdzoo.Need.LOGITS, got 'logits'",
    ),
    "misspelt_option": (
        function("return 0", decorator="@kdzoo.register('mine', need=None)"),
        "unexpected keyword argument 'need'; did you mean 'needs'?",
    ),
    "no_parentheses": (function("return 0", decorator="@kdzoo.register"), "write @kdzoo.register('mine') with parentheses"),
    "empty_parentheses": (function("return 0", decorator="@kdzoo.register()"), 'write @kdzoo.register("NAME") above a function or a class'),
    "misspelt_register": (function("return 0", decorator="@kdzoo.registr('mine')"), "has no attribute 'registr'; did you mean 'register'?"),
    "taken": (function(f"return {DISTANCE}.mean()", decorator="@kdzoo.register('hinton')"), "methods: 'hinton' is defined twice"),
    "dashes": (function(f"return {DISTANCE}.mean()", decorator="@kdzoo.register('my-loss')"), "for example 'my_loss'"),
    "missing_module": ("import torchvison\n", "file.py:1: ModuleNotFoundError: No module named 'torchvison'; did you mean 'torchvision'?"),
    "syntax": (
        f"{HEAD}@kdzoo.register('mine')\ndef mine(student, teacher, batch)\n    pass\n",
        "file.py:7: syntax error in `def mine(student, teacher, batch)`: expected ':'",
    ),
    "plain_class": (
        f"{HEAD}@kdzoo.register('mine')\nclass Mine:\n    pass\n",
        "write class Mine(kdzoo.Method) with loss(self, student, teacher, batch, module)",
    ),
    "module_class": (f"{HEAD}@kdzoo.register('mine')\nclass Mine(nn.Module):\n    pass\n", "an nn.Module is what its build() returns"),
    "forward": (
        method("def forward(self, student, teacher, batch, module):\n    return 0"),
        "Mine has no loss(self, student, teacher, batch, module); rename its forward()",
    ),
    "loss_without_module": (
        method("def loss(self, student, teacher, batch):\n    return 0"),
        "file.py:8: expected loss(self, student, teacher, batch, module), got loss(self, student, teacher, batch)",
    ),
    "build_without_data": (
        method(f"def build(self, student, teacher):\n    return nn.Linear(1, 1)\n{LOSS}0"),
        "expected build(self, student, teacher, data), got build(self, student, teacher)",
    ),
    "layer_on_the_class": (
        method(f"layer = nn.Linear(5, 8)\n{LOSS}0"),
        "layer = Linear(in_features=5, out_features=8, bias=True) is a class attribute. Layers: build them in build()",
    ),
    "layer_as_field": (method(f"layer: nn.Module = nn.Linear(5, 8)\n{LOSS}0"), "not a layer. Layers: build them in build()"),
    "attribute_without_type": (method(f"t = 4.0\n{LOSS}0"), "t = 4.0 has no type: a hyper-parameter is declared as t: float = 4.0"),
    "async": (f"{HEAD}@kdzoo.register('mine')\nasync def mine(student, teacher, batch):\n    return 0\n", "write `def`, not `async def`"),
    "yield": (function(f"yield {DISTANCE}.mean()"), "write `return`, not `yield`"),
    "default_dtype": ("import torch\ntorch.set_default_dtype(torch.float64)\n", "changed torch's default dtype for the whole process"),
}

INIT = "def __init__(self):\n    super().__init__()\n    self.layer = nn.Linear(64, 128)\n"
PROJECTED = "def build(self, student, teacher, data):\n    return nn.Linear(64, 128)\n"

FAULTY = {  # when they are run: what `check` says, and whether a bench finds it before it trains anything
    "per_sample": (
        function(f"return {DISTANCE}.sum(1)"),
        "one value per sample, expected a scalar: reduce it, for example with .mean()",
        True,
    ),
    "float": (function(f"return {DISTANCE}.mean().item()"), "the loss returns a float, which carries no gradient", True),
    "nothing": (function(f"loss = {DISTANCE}.mean()"), "the loss returns None, expected a scalar tensor: is a `return` missing?", True),
    "tuple": (function(f"return {DISTANCE}.mean(), 0"), "the loss returns a tuple, expected one scalar tensor", True),
    "whole_numbers": (
        function("return (student.logits.argmax(1) != teacher.logits.argmax(1)).sum()"),
        "comparing, counting and argmax carry no gradient",
        True,
    ),
    "detached": (
        function("return (student.logits.detach() - teacher.logits.detach()).square().mean()"),
        "loss carries no gradient: is the student detached",
        True,
    ),
    "no_grad": (function(f"with torch.no_grad(): return {DISTANCE}.mean()"), "loss carries no gradient: is the student detached", True),
    "nan": (
        function("return (student.logits - teacher.logits.detach()).log().mean()"),
        "NaN or infinite|loss of random logits and maps around zero is nan",
        True,
    ),
    "teacher_in_place": (
        function("return (student.logits - teacher.logits.detach().div_(4)).square().mean()"),
        "teacher's logits in place",
        True,
    ),
    "student_in_place": (function("return (student.logits.div_(4) - teacher.logits.detach()).square().mean()"), "in place", True),
    "leaking": (function("return (student.logits - teacher.logits).square().mean()"), "detach it, teacher.logits.detach()", False),
    "half": (
        method(f"{LOSS}{DISTANCE}.mean()"),
        "outputs in bfloat16 give a loss in bfloat16: convert first, for example student.logits.float()",
        False,
    ),
    "half_layer": (
        method(
            f"def build(self, student, teacher, data):\n    return nn.Linear(student.classes, teacher.classes)\n{LOSS}(module(student.logits) - teacher.logits.detach()).square().mean()"
        ),
        "convert first, for example student.logits.float()",
        False,
    ),
    "undeclared": (
        method(f"{LOSS}{DISTANCE}.float().mean()", needs="kdzoo.Need.STAGES"),
        "declare it: write needs=Need.LOGITS|needs= does not declare: add it there",
        True,
    ),
    "embeddings": (
        function("return (student.embedding - teacher.embedding.detach()).square().mean()"),
        "Build a projector in build(): kdzoo.projector(student.embedding, teacher.embedding)",
        True,
    ),
    "stages": (
        function("return sum((s - t.detach()).square().mean() for s, t in zip(student.stages, teacher.stages))"),
        "Build a projector in build(): kdzoo.projector(student.stages[0], teacher.stages[0])",
        True,
    ),
    "fixed_width": (
        method(f"{PROJECTED}{LOSS}(module(student.embedding.float()) - 0).square().mean()", needs="kdzoo.Need.EMBEDDING"),
        "Build layers in build() from the shapes of the two networks|Build a projector in build()",
        True,
    ),
    "layer_in_init": (
        method(f"{INIT}{LOSS}0", needs="kdzoo.Need.EMBEDDING"),
        "its __init__ sets self.layer, which a Method does not keep. Layers: build them in build()",
        True,
    ),
    "layer_in_module": (
        f"{HEAD}layer = nn.Linear(10, 10)\n\n\n"
        + function("return (student.logits - layer.weight.mean() - teacher.logits.detach()).square().mean()").removeprefix(HEAD),
        "layer at module level (nn.Linear). Layers: build them in build()",
        False,
    ),
    "layer_in_loss": (
        function("return nn.Linear(student.logits.shape[1], 3)(student.logits).float().square().mean()"),
        "a new Linear in every call of loss(), with new random weights. Layers: build them in build()",
        False,
    ),
    "list_of_layers": (
        method(f"def build(self, student, teacher, data):\n    return [nn.Linear(1, 1)]\n{LOSS}{DISTANCE}.mean()"),
        "build() returns a list, expected an nn.Module: nn.ModuleList([...]) holds several",
        True,
    ),
    "random": (function(f"return ({DISTANCE} * torch.rand(1)).mean()"), "draw random numbers with generator=batch.generator", False),
}


@pytest.fixture
def plugin(place: Path):
    """Write the file of a plugin."""

    def write(text: str) -> str:
        (place / "file.py").write_text(text)
        return "file.py"

    return write


BENCH = ("--methods", "mine", "--data", "digits", "--pairs", "digits", "--recipe", "digits", "--epochs", "3", "--seeds", "1")


def matches(words: str, said: str) -> bool:
    return any(alternative in said for alternative in words.split("|"))


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_by_every_command_in_the_same_words(kdzoo, plugin, name):
    text, words = REFUSED[name]
    file = plugin(text)
    for command in (("check", file), ("bench", "--plugin", file, *BENCH, "--dry-run")):
        said = kdzoo(*command)
        assert (said.status, words in said.err) == (2, True), said


@pytest.mark.parametrize("name", FAULTY)
def test_a_loss_that_fails_says_what_to_write_instead_and_no_teacher_is_trained_for_it(kdzoo, plugin, name):
    text, words, found_by_a_bench = FAULTY[name]
    file = plugin(text)
    checked = kdzoo("check", file)
    assert (checked.status, matches(words, checked.out)) == (1, True), checked
    assert checked.out.count("FAILED") <= 1, checked.out
    if found_by_a_bench:
        planned = kdzoo("bench", "--plugin", file, *BENCH, "--dry-run")
        assert (planned.status, matches(words, planned.err)) == (2, True), planned
        assert name in ("layer_in_init", "list_of_layers") or "`kdzoo check file.py`" in planned.err
    else:
        prepared(file, "mine")
    assert not list(Path("cache").rglob("result.json"))


ENDINGS = {
    "a signal": ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    "a crash": ("ctypes.string_at(0)", "was killed by SIGSEGV"),
    "an exit": ("leave(3)", "ended with status 3"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_loss_that_kills_its_process_is_refused_by_name_and_the_bench_survives(kdzoo, plugin, how):
    act, words = ENDINGS[how]
    text = function(f"{act}\n    return {DISTANCE}.mean()", decorator="@kdzoo.register('mine', needs=kdzoo.Need.LOGITS)")
    file = plugin(f"import ctypes\nimport os\nimport signal\nfrom os import _exit as leave\n\n{text}")
    said = kdzoo("bench", "--plugin", file, *BENCH, "--dry-run")
    assert (said.status, said.err.count("method 'mine': one training step ends the whole process, which")) == (2, 1), said
    assert words in said.err
    assert not list(Path("cache").rglob("result.json"))


def test_a_width_mismatch_in_a_bench_has_the_numbers_of_its_own_networks(kdzoo, plugin):
    file = plugin(FAULTY["embeddings"][0])
    said = kdzoo("bench", "--plugin", file, *BENCH, "--dry-run")
    assert "file.py:8: RuntimeError: The size of tensor a (8) must match the size of tensor b (64)" in said.err
    assert "(embedding: student 8 channels, teacher 64 channels)" in said.err


def test_what_would_repeat_a_fault_is_skipped_and_what_does_not_apply_is_not_called_ok(kdzoo, plugin):
    per_sample = kdzoo("check", plugin(FAULTY["per_sample"][0])).out
    assert "mine: 21 checks, 1 failed, 19 skipped, 1 not applicable" in per_sample
    assert "skipped         19 checks that would only repeat the fault of `returns a finite scalar`" in per_sample
    detached = kdzoo("check", plugin(FAULTY["detached"][0])).out
    assert (
        "skipped         5 checks that would only repeat the fault of `gradient reaches the student`: gradient reaches every parameter"
        in detached
    )
    sound = kdzoo("check", plugin(function(f"return {DISTANCE}.mean()"))).out
    assert "mine: 17 checks, all passed, 5 not applicable" in sound
    assert "not applicable  gradient reaches every parameter of build(): build() makes nothing that learns" in sound
    assert "not applicable  zero where the student equals the teacher: zero_at_match=True is not declared" in sound


def test_a_warning_of_the_loss_is_shown_once_with_its_line(kdzoo, plugin):
    text = function("return F.mse_loss(student.logits, teacher.logits.detach()[:1])")
    said = kdzoo("check", plugin(text)).out
    assert said.count("warning         file.py:8: Using a target size (torch.Size([1, 5]))") == 1


def test_a_plugin_named_like_the_module_that_it_imports_is_told_to_take_another_name(kdzoo, place):
    (place / "numpy.py").write_text("import numpy\n")
    assert "import numpy finds this very file, numpy.py: give the file another name" in kdzoo("check", "numpy.py").err


OWN = f"""{HEAD}
from pydantic import Field

@kdzoo.register("bank", needs=kdzoo.Need.EMBEDDING | kdzoo.Pass.SECOND_VIEW | kdzoo.Pass.PARTNER | kdzoo.Need.TARGETS)
class Bank(kdzoo.Method):
    def build(self, student, teacher, data):
        module = nn.Module()
        module.project = kdzoo.projector(student.embedding, teacher.embedding)
        module.register_buffer("bank", torch.zeros(data.samples, teacher.embedding))
        return module

    def loss(self, student, teacher, batch, module):
        random.random(), np.random.rand(), torch.rand(3)
        module.bank[batch.index] = teacher.embedding.detach().float()
        views = (student, student.second, student.partner)
        return sum((module.project(view.embedding) - module.bank[batch.index]).square().mean() for view in views)


@kdzoo.register("late", needs=kdzoo.Need.LOGITS)
def late(student, teacher, batch):
    if batch.clock.progress < 0.5:
        return torch.zeros(())
    return (student.logits - teacher.logits.detach()).square().mean()


@kdzoo.register("many", needs=kdzoo.Need.LOGITS)
def many(student, teacher, batch):
    assert len(student.logits) >= 16, "a whole batch"
    return (student.logits - teacher.logits.detach()).square().mean()
""".replace("import kdzoo\n", "import kdzoo\nimport random\nimport numpy as np\n", 1)


def prepared(file: Path | str, methods: str, **options):
    asked = {"plugin": (str(file),), "methods": methods, "data": "digits", "pairs": "digits", "recipe": "digits", "epochs": 3, "seeds": "1"}
    return prepare(bench_config({**asked, **options}, None))


def test_the_trial_step_leaves_no_trace(place):
    """Second view, partner, memory bank, two stages, a sum, a warm-up, a loss that needs a whole batch: no state, stream or file moves."""
    (place / "own.py").write_text(OWN)
    load_plugin(place / "own.py")
    prepared("own.py", "hinton")
    before = (
        current_settings(),
        torch.random.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        sorted(place.rglob("*")),
    )
    done = prepared("own.py", "bank,late,many,bank+hinton,fitnet_two_stage+bank")
    after = current_settings(), torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), sorted(place.rglob("*"))
    assert len(done.plan.students) == 7  # the five, and the two controls
    assert torch.equal(before[1], after[1])
    assert [*before[:1], *before[2:]] == [*after[:1], *after[2:]]
    assert not teacher_store().folder.exists()


def test_runs_that_fail_later_point_to_check(plugin):
    file = plugin(function(f"assert batch.clock.step != 5, 'later'\n    return {DISTANCE}.mean()"))
    events = []
    outcome = bench.run(prepared(file, "mine", limit=300, allow_chance_teacher=True), Here(), events.append, retry_failed=False)
    assert [run_id.partition("-")[0] for run_id in outcome.failed] == ["mine"]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "runs with mine failed: `kdzoo check file.py` finds most faults of a loss" in notes


HANGS = """
import time
import kdzoo

def hang(student, teacher, batch):
    if batch.clock.steps > 10:  # no probe of what it reads
        time.sleep(600)
    return (student.logits - teacher.logits).square().mean()

kdzoo.register("endless")(hang)
kdzoo.register("endless_too")(lambda student, teacher, batch: 2 * hang(student, teacher, batch))
"""


def test_a_copy_that_does_not_answer_is_noted_once_and_no_other_is_made(place, monkeypatch):
    waits = []
    monkeypatch.setattr(fork.Connection, "poll", lambda self, seconds: waits.append(seconds))  # no answer within that time
    (place / "own.py").write_text(OWN)
    notes = [note for note in prepared("own.py", "late,many", weights="1").plan.notes if "did not answer" in note]
    assert waits == [30.0]
    assert len(notes) == 1
    assert notes[0].startswith("late: the trial of its loss in a copy of this process did not answer within 30 seconds; it and the losses")
    assert "a run that hangs is ended after --run-timeout" in notes[0]


def test_a_loss_that_hangs_keeps_no_bench_in_its_trial(place, monkeypatch):
    """Nothing of it runs in the bench's own process, whose step would never end."""
    monkeypatch.setattr(fork, "PATIENCE_SECONDS", 1.0)
    (place / "own.py").write_text(HANGS)
    began = time.monotonic()
    notes = [note for note in prepared("own.py", "endless,endless_too", weights="1").plan.notes if "did not answer" in note]
    assert len(notes) == 1
    assert time.monotonic() - began < 60


def test_the_zoos_own_methods_are_not_tried(place, monkeypatch):
    tried = []
    monkeypatch.setattr(preflight, "try_loss", lambda bound, *rest: tried.append(bound.run.objective.label))
    (place / "own.py").write_text(OWN)
    prepared("own.py", "hinton,crd,late,late+hinton", weights="1,3")
    assert tried == ["late", "hinton+late"]
