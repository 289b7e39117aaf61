"""kdzoo from Python: fast to import, and a bench as a function."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from warm_python import run_warm

import kdzoo as zoo
from kdzoo.runs.options import ALL
from kdzoo.suite.plan.config import BenchConfig


def test_importing_kdzoo_imports_nothing_heavy():
    code = "import kdzoo, sys; print([m for m in ('torch', 'timm', 'pandas', 'scipy', 'rich', 'typer') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert all(getattr(zoo, name) is not None for name in zoo.__all__)
    assert set(zoo.__all__) <= set(dir(zoo))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'bnch'"):
        zoo.bnch  # noqa: B018


def test_names_for_type_checkers_are_those_found_at_run_time():
    tree = ast.parse(Path(zoo.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name for statement in block.body for alias in statement.names}
    assert typed == set(zoo._HOMES)


def test_every_key_of_a_bench_is_a_parameter():
    parameters = set(inspect.signature(zoo.bench).parameters)
    assert parameters - {"config", "quick", "retry_failed", "execution"} == set(BenchConfig.model_fields) - set(ALL)


def test_create_method_and_functional_agree():
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(4, 10, generator=random), torch.randn(4, 10, generator=random)
    method = zoo.create_method("hinton", temperature=2.0)
    softened = [torch.log_softmax(logits / 2, 1) for logits in (teacher, student)]
    by_hand = 4 * (softened[0].exp() * (softened[0] - softened[1])).sum(1).mean()
    assert method.temperature == 2.0
    assert torch.allclose(zoo.functional.hinton(student, teacher, temperature=2.0), by_hand)


def test_create_method_names_what_is_wrong():
    with pytest.raises(zoo.InputError, match=r"hinton\.temperature: expected a number > 0, got 0"):
        zoo.create_method("hinton", temperature=0)
    with pytest.raises(zoo.InputError, match="did you mean 'hinton'"):
        zoo.create_method("hintn")


def test_a_bench_reports_bad_input_before_any_work(place):
    with pytest.raises(zoo.InputError) as caught:
        zoo.bench(["hintn"], data="digit")
    assert len(caught.value.problems) == 2
    assert list(place.iterdir()) == []


SMALL = {"epochs": 1, "seeds": 1, "temperatures": 4, "execution": zoo.Execution(threads=1, jobs=1)}


class Net(nn.Module):
    """A network of a user's own, for images of 8x8 grey pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def test_a_modules_name_is_its_class_structure_and_weights():
    from kdzoo.models.identity import module_name

    torch.manual_seed(0)
    net = Net(4)
    name = module_name(net)
    assert name.startswith("module:Net-")
    torch.manual_seed(0)
    assert module_name(Net(4)) == name
    assert module_name(Net(4)) != name
    with torch.no_grad():
        net.head.bias[0] += 1
    assert module_name(net) != name


@pytest.mark.slow
def test_a_bench_returns_its_leaderboard(place):
    board = zoo.bench(methods=["hinton"], results=place / "out", **SMALL)
    assert isinstance(board, zoo.BenchResult)
    assert isinstance(board, pd.DataFrame), "code for frames goes on working"
    assert set(board["method"]) == {"teacher", "hinton", "none"}
    assert board["test_top1"].between(0, 1).all()
    assert board.attrs == {"folder": str(place / "out/digits"), "failed": {}}
    assert (place / "out/digits/leaderboard.csv").exists()
    written = {path: path.stat().st_mtime_ns for path in place.glob("out/digits/runs/*/result.json")}
    again = zoo.bench(methods=["hinton"], results=place / "out", **SMALL)
    assert again.equals(board)
    assert {path: path.stat().st_mtime_ns for path in written} == written


@pytest.mark.slow
def test_plain_modules_train_in_this_process_and_stay_as_they_were(place):
    torch.manual_seed(0)
    teacher, student = Net(16), Net(2)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    threads = torch.get_num_threads()
    chance = zoo.Execution(threads=1, jobs=1, allow_chance_teacher=True)
    board = zoo.bench(["hinton"], teacher=teacher, student=student, data="digits", name="mine", **{**SMALL, "execution": chance})
    assert set(board["method"]) == {"teacher", "hinton", "none"}
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())
    assert teacher.training
    assert torch.get_num_threads() == threads
    plan = json.loads(next(place.glob("results/mine/runs/hinton-*/run.json")).read_text())
    assert plan["run"]["student"]["name"].startswith("module:Net-")
    assert plan["run"]["teacher"]["name"].startswith("module:Net-")
    assert plan["run"]["teacher"]["name"] != plan["run"]["student"]["name"]


@pytest.mark.slow
def test_an_untrained_module_does_not_teach_unless_asked(place):
    torch.manual_seed(0)
    with pytest.raises(zoo.InputError, match="not above chance"):
        zoo.bench(["hinton"], teacher=Net(16), student=Net(2), data="digits", **SMALL)


@pytest.mark.slow
def test_a_method_that_exists_only_here_is_trained_here_and_its_failure_is_a_warning(place):
    @zoo.register("api_failing", needs=zoo.Need.LOGITS)
    def api_failing(student, teacher, batch):
        if batch.clock.step == 2 and batch.clock.steps > 10:  # not in the steps that are tried before training
            raise RuntimeError("a bug of the method")
        return (student.logits - teacher.logits.detach()).pow(2).mean()

    with pytest.warns(RuntimeWarning, match="a bug of the method"):
        board = zoo.bench(["api_failing", "hinton"], **SMALL)
    assert list(board.attrs["failed"].values()) == ["RuntimeError: a bug of the method"]
    assert board.set_index("method").loc["hinton", "n"] == 1
    assert board.set_index("method").loc["api_failing", "failed"] == 1


@pytest.mark.slow
def test_data_that_exist_only_here_are_trained_on_here(place):
    import numpy as np

    from kdzoo.data.canonical import Raw
    from kdzoo.data.sources import register_source

    random = np.random.default_rng(0)

    def halves() -> Raw:
        """Bright left halves and bright right halves."""
        labels = np.arange(120) % 2
        images = random.integers(0, 60, (120, 8, 8)).astype(np.uint8)
        images[labels == 0, :, :4] += 150
        images[labels == 1, :, 4:] += 150
        return Raw((images[:80], labels[:80]), (images[80:], labels[80:]), ("left", "right"))

    register_source("halves", halves, "made up")
    made = zoo.bench(
        ["hinton"], data="halves", pairs="digits", recipe="digits", epochs=3, seeds=1, execution=zoo.Execution(threads=1, jobs=1)
    )
    assert set(made["data"]) == {"halves"}
    assert made.attrs["failed"] == {}


NOTEBOOK = """
import kdzoo

@kdzoo.register("cell_loss")
def cell_loss(student, teacher, batch, *, power: float = 2.0):
    return (student.logits - teacher.logits.detach()).abs().pow(power).mean()

board = kdzoo.bench(["cell_loss"], epochs=1, seeds=1, temperatures=4, execution=kdzoo.Execution(threads=1, jobs=1))
print(sorted(board["method"]))
"""


@pytest.mark.slow
def test_a_script_needs_no_main_guard(place):
    (place / "script.py").write_text(NOTEBOOK)
    said = run_warm([sys.executable, "script.py"], cwd=place)
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip().splitlines()[-1] == "['cell_loss', 'hinton', 'none', 'teacher']"


REGISTERED_HERE = """
import warnings
import numpy as np, torch, kdzoo
from torch import nn

warnings.simplefilter("error")  # a run that fails is warned of
HOW = kdzoo.Execution(threads=1, jobs=1, allow_chance_teacher=True)
COMMON = dict(epochs=1, seeds=1, execution=HOW, set={"teacher_recipe.epochs": 1})


class Small(nn.Module):
    def __init__(self, num_classes=10, in_chans=1, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(in_chans, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def halves():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = random.integers(0, 60, (60, 8, 8)).astype(np.uint8)
    images[labels == 0, :, :4] += 150
    return kdzoo.Raw((images[:40], labels[:40]), (images[40:], labels[40:]), ("left", "right"))


kdzoo.register_network("script_student", lambda num_classes, in_chans: Small(num_classes, in_chans))
kdzoo.register_network("script_teacher", lambda num_classes, in_chans: Small(num_classes, in_chans, 8))
kdzoo.register_source("script_halves", halves)
kdzoo.register_pair(kdzoo.Pair("script_pair", "digits_teacher", "digits_student", "digits"))
with open("short.yaml", "w") as file:
    file.write("description: a short one\\nrecipe: {epochs: 1, batch_size: 128, lr: 0.05}\\n")
kdzoo.register_recipe("script_recipe", "short.yaml")


def trained(name, **request):
    board = kdzoo.bench("hinton", name=name, **request, **COMMON)
    print(name, sorted(board["method"]), board.attrs["failed"])


trained("student", data="digits", limit=200, teacher="digits_teacher", student="script_student")
trained("teacher", data="digits", limit=200, teacher="script_teacher", student="digits_student")
trained("source", data="script_halves", pairs="digits", recipe="digits", plugin="idle.py")
trained("pair-and-recipe", data="digits", limit=200, pairs="script_pair", recipe="script_recipe")
"""


@pytest.mark.slow
def test_whatever_a_script_registers_is_trained(place):
    (place / "script.py").write_text(REGISTERED_HERE)
    (place / "idle.py").write_text("x = 1  # a plugin that does not know what the script knows\n")
    said = run_warm([sys.executable, "script.py"], cwd=place)
    assert said.returncode == 0, said.stderr
    lines = [line for line in said.stdout.splitlines() if line.endswith("{}")]
    assert lines == [f"{name} ['hinton', 'none', 'teacher'] {{}}" for name in ("student", "teacher", "source", "pair-and-recipe")]


def test_a_networks_home_is_the_plugin_that_registers_it(place):
    from kdzoo.models.names import plugin_with, register_network

    (place / "nets.py").write_text("import kdzoo\nkdzoo.register_network('of_plugin', lambda num_classes, in_chans: None)\n")
    zoo.load_plugin("nets.py")
    register_network("of_process", lambda num_classes, in_chans: torch.nn.Identity())
    assert plugin_with("of_plugin") == str(place / "nets.py")
    assert plugin_with("of_process") == ""
    assert plugin_with("resnet18") is None
    assert plugin_with("digits_student") is None


def test_nothing_is_warned_of_when_kdzoo_is_imported():
    subprocess.run([sys.executable, "-W", "error", "-c", "import kdzoo; kdzoo.register"], check=True)


def test_all_that_a_plugin_of_two_stages_with_parts_of_its_own_names_is_public():
    @zoo.register("public_names", needs=zoo.Need.LOGITS, pretrain=zoo.PretrainStage("hinton", share=1 / 4, followed_by=("at",)))
    class PublicNames(zoo.Method):
        def groups(self, module):
            return [zoo.ParamGroup(list(module.parameters()), lr=0.1)]

        def loss(self, student, teacher, batch, module):
            return zoo.LossWithAux(student.logits.mean(), teacher.logits.mean())

        def ramp(self, clock: zoo.Progress) -> float:
            return clock.progress

    method = zoo.create_method("public_names")
    assert method.ramp(zoo.Progress(epoch=1, epochs=4, step=3, steps=12)) == 0.25
    assert method.card.pretrain.epochs(of_recipe=40) == 10
    assert [group.lr for group in method.groups(torch.nn.Linear(2, 2))] == [0.1]
