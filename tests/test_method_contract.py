"""What registering a method promises: needs, names, origins, versions, hyper-parameters and plugins."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from pydantic import Field
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Coefficients, Setting, Source
from kdzoo.contract.method import Method
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.needs import Need, Needs, UndeclaredNeed
from kdzoo.contract.neighbours import normalised_syntax
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import load_plugin
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY._all()))


@pytest.fixture
def plugin(tmp_path):
    """Write a plugin and load it."""

    def load(text: str, name: str = "my_loss.py") -> Path:
        file = tmp_path / name
        file.write_text("import kdzoo\n" + textwrap.dedent(text))
        load_plugin(file)
        return file

    return load


def outputs(**values) -> Outputs:
    return Outputs.of({Need[name.upper()]: value for name, value in values.items()}, owner="student")


def batch_of(targets: list[int], asked: Need = Need.TARGETS) -> Batch:
    return Batch(
        inputs=torch.zeros(len(targets), 1, 2, 2, dtype=torch.uint8),
        targets=torch.tensor(targets),
        index=torch.arange(len(targets)),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator(),
        need=asked,
    )


FUNCTION = """
@kdzoo.register("my_loss")
def my_loss(student, teacher, batch, *, power: float = 2.0):
    '''Distances of logits.'''
    return (student.logits - teacher.logits.detach()).abs().pow(power).mean()
"""


# --- a function


def test_a_function_is_a_method_with_its_keywords_as_hyperparameters(plugin):
    plugin(FUNCTION)
    made = create_method("my_loss", power=1.0)
    loss = made.loss(outputs(logits=torch.tensor([[1.0, 2.0]])), outputs(logits=torch.tensor([[0.0, 4.0]])), batch_of([0]), nn.Module())
    assert loss.item() == 1.5
    assert create_method("my_loss").power == 2.0
    assert made.card.summary == "Distances of logits."


def test_a_registered_function_stays_a_function():
    @register("plain")
    def plain(student, teacher, batch):
        return student.logits.mean()

    assert plain(outputs(logits=torch.ones(2, 3)), None, None).item() == 1.0


@pytest.mark.parametrize(
    ("body", "student", "teacher"),
    [
        ("student.logits.mean()", Need.LOGITS, Need.NOTHING),
        ("(student.logits - teacher.logits).mean()", Need.LOGITS, Need.LOGITS),
        ("(student.embedding - teacher.embedding).mean() + teacher.logits.mean()", Need.EMBEDDING, Need.EMBEDDING | Need.LOGITS),
        ("sum(s.mean() for s in student.stages) + batch.targets.sum()", Need.STAGES | Need.TARGETS, Need.NOTHING),
        ("teacher.classifier(student.embedding).mean()", Need.EMBEDDING, Need.CLASSIFIER),
    ],
)
def test_what_a_function_reads_is_found_by_a_trial_call(plugin, body, student, teacher):
    plugin(f"@kdzoo.register('probed')\ndef probed(student, teacher, batch):\n    return {body}")
    assert REGISTRY.get("probed").card.needs == Needs(student, teacher)


def test_a_trial_call_that_fails_asks_for_the_declaration():
    def saliency(student, teacher, batch):
        return student.network(batch.inputs).mean()

    with pytest.raises(
        InputError, match=r"method 'saliency' at .*test_method_contract.py:\d+: the trial call that finds what it reads"
    ) as caught:
        register("saliency")(saliency)
    assert "student.network is read, but needs= does not declare it" in str(caught.value)
    assert str(caught.value).endswith("or declare what it reads: @kdzoo.register('saliency', needs=kdzoo.Need.LOGITS | ...)")
    register("saliency", needs=Need.NETWORK)(saliency)
    assert REGISTRY.get("saliency").card.needs == Needs(Need.NETWORK, Need.NETWORK)


def test_a_function_of_other_arguments_is_refused():
    with pytest.raises(
        InputError, match=r"expected wrong\(student, teacher, batch, \*, hyperparameters\.\.\.\), got the parameters \['s', 't'\]"
    ):

        @register("wrong")
        def wrong(s, t):
            return s


def test_only_methods_and_functions_are_registered():
    with pytest.raises(InputError, match=r"register\('number'\): expected a kdzoo\.Method class or a function, got 3"):
        register("number")(3)
    with pytest.raises(InputError, match=r"the class Linear: write class Linear\(kdzoo\.Method\) with loss"):
        register("module")(nn.Linear)


# --- a Method


class Scaled(Method):
    """The student's logits, scaled.

    More about it.
    """

    weight: float = Field(1.0, gt=0, le=10)
    version: int = 3
    name: str = "of the field"

    def loss(self, student, teacher, batch, module):
        return self.weight * student.logits.mean()


def test_a_declaration_and_fields_of_the_same_names_do_not_collide():
    source = Source("A paper", 2020, "https://arxiv.org/abs/0000.00000")
    assert register("scaled", needs=Needs(Need.LOGITS, Need.NOTHING), scale=3.0, source=source, version=7)(Scaled) is Scaled
    made = create_method("scaled", weight=2)
    assert (made.weight, made.version, made.name) == (2.0, 3, "of the field")
    card = made.card
    assert (card.name, card.version, card.source, card.scale) == ("scaled", "7", source, 3.0)
    assert card.published == Coefficients(1.0, 3.0)
    assert card.summary == "The student's logits, scaled."
    assert card.search[0] == Setting()
    assert sorted(setting.dose for setting in card.search[1:]) == [0.03, 0.1, 0.3, 1.0, 3.0]


def test_unless_overridden_nothing_is_built_and_nothing_ramps():
    built = Scaled().build(Shapes(2, 3, ()), Shapes(2, 3, ()), DataFacts(1, 2, torch.tensor([0])))
    assert list(built.parameters()) == []
    assert Scaled().ramp(Progress(0, 1, 0, 10)) == 1.0
    with pytest.raises(NotImplementedError, match="Method has no loss"):
        Method().loss(outputs(), outputs(), None, built)


def test_one_need_means_the_same_of_both_but_labels_are_the_batchs():
    assert Needs.of(Need.EMBEDDING | Need.TARGETS) == Needs(Need.EMBEDDING | Need.TARGETS, Need.EMBEDDING)
    assert Needs.of(Need.EMBEDDING | Need.TARGETS).targets
    assert not Needs.of(Need.LOGITS).targets


@pytest.mark.parametrize("name", ["hinton", "logits", "dkd", "dist", "simkd", "bss", "dml", "ofa", "lwm", "sobolev"])
def test_alpha_one_makes_sense_where_the_shipped_classifier_is_trained(name):
    assert REGISTRY.get(name).card.trains_classifier


@pytest.mark.parametrize("name", ["at", "crd", "fitnet", "rkd", "vid", "nst", "srrl", "ft", "embed", "tokens", "proteus"])
def test_alpha_one_makes_no_sense_where_only_features_are_trained(name):
    assert not REGISTRY.get(name).card.trains_classifier


# --- reading what was not asked for


def test_reading_what_was_not_declared_names_the_declaration_that_mends_it():
    made = outputs(logits=torch.ones(1, 2), stages=[])
    with pytest.raises(UndeclaredNeed) as caught:
        _ = made.embedding
    assert str(caught.value) == (
        "student.embedding is read, but needs= does not declare it: write needs=Need.LOGITS | Need.EMBEDDING | Need.STAGES"
    )
    with pytest.raises(UndeclaredNeed, match=r"batch\.targets is read, but needs= does not declare it: add Need\.TARGETS"):
        _ = batch_of([0], Need.NOTHING).targets
    with pytest.raises(UndeclaredNeed, match=r"batch\.inputs is read, but needs= does not declare it: add Need\.NETWORK"):
        _ = batch_of([0]).inputs


# --- names


def test_two_definitions_of_one_name_are_refused_with_both_places(plugin):
    first = plugin(FUNCTION, "one.py")
    with pytest.raises(InputError) as caught:
        plugin("\n\n" + FUNCTION, "two.py")
    assert str(caught.value) == f"methods: 'my_loss' is defined twice: at {first}:3 and at {first.parent / 'two.py'}:5; choose another name"
    assert REGISTRY.get("my_loss").card.origin == f"{first}:3"


def test_a_name_of_the_zoo_cannot_be_taken(plugin):
    with pytest.raises(InputError, match=r"methods: 'hinton' is defined twice: at .*hinton.py:\d+ and at .*my_loss.py:3"):
        plugin(FUNCTION.replace('"my_loss"', '"hinton"'))


def test_the_same_file_again_is_no_error_and_the_later_definition_holds(plugin):
    plugin(FUNCTION)
    plugin(FUNCTION)
    plugin(FUNCTION.replace("2.0", "3.0"))
    assert create_method("my_loss").power == 3.0


def test_a_notebook_cell_run_again_is_no_error():
    for default in ("1.0", "2.0"):
        cell = f"def cell(student, teacher, batch, *, weight: float = {default}):\n    return weight * student.logits.mean()"
        space: dict = {"__name__": "__main__"}
        exec(compile(cell, f"<ipython-input-{default}>", "exec"), space)
        register("cell")(space["cell"])
    assert create_method("cell").weight == 2.0


@pytest.mark.parametrize("name", ["none", "ce", "a+b", "my-loss", "2much", ""])
def test_a_name_that_the_command_line_could_not_read_is_refused(name):
    with pytest.raises(InputError, match="expected letters, digits and underscores, no digit first, and neither 'none' nor 'ce'"):
        register(name, needs=Need.LOGITS)(Scaled)


def test_an_unknown_name_comes_with_the_nearest_and_all_known():
    with pytest.raises(InputError) as caught:
        create_method("hintn")
    assert str(caught.value).startswith("methods: unknown 'hintn'; did you mean 'hinton'? Known: ab, abkd, afd, at, ")


# --- hyper-parameters


def test_every_fault_of_the_hyperparameters_is_reported_at_once_with_the_nearest_name():
    with pytest.raises(InputError) as caught:
        create_method("rkd", distance_weight=-1.0, angle_weigth=50.0)
    assert set(caught.value.problems) == {
        "rkd.distance_weight: expected a number >= 0, got -1.0",
        "rkd.angle_weigth: unknown; did you mean 'angle_weight'?",
    }
    with pytest.raises(InputError, match=r"logits\.temperature: unknown; takes none"):
        create_method("logits", temperature=2.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, True, "2", None])
def test_infinities_nan_booleans_and_text_are_no_numbers(wrong):
    with pytest.raises(InputError, match=r"hinton\.temperature: "):
        create_method("hinton", temperature=wrong)


def test_a_functions_hyperparameters_are_as_strict(plugin):
    plugin(FUNCTION)
    with pytest.raises(InputError, match=r"my_loss\.power: .* got True"):
        create_method("my_loss", power=True)
    with pytest.raises(InputError, match=r"my_loss\.powr: unknown; did you mean 'power'\?"):
        create_method("my_loss", powr=1.0)


def test_a_method_is_frozen_and_whole_numbers_are_floats():
    made = create_method("hinton", temperature=4)
    assert made == create_method("hinton", temperature=4.0)
    with pytest.raises(ValueError, match="frozen"):
        made.temperature = 2.0


# --- versions


def version_of(plugin, text: str) -> str:
    plugin(text)
    return REGISTRY.get("my_loss").card.version


def test_a_comment_a_docstring_and_layout_leave_the_version_and_code_changes_it(plugin):
    first = version_of(plugin, FUNCTION)
    assert version_of(plugin, FUNCTION.replace("'''Distances of logits.'''", "'''Other words.'''")) == first
    assert version_of(plugin, FUNCTION.replace("    '''Distances of logits.'''\n", "")) == first
    assert version_of(plugin, FUNCTION.replace(".mean()", ".mean()  # over all")) == first
    assert version_of(plugin, "\n\n\n" + FUNCTION.replace("(student.logits - ", "(  student.logits\n        - ")) == first
    assert version_of(plugin, FUNCTION.replace(".mean()", ".sum()")) != first
    assert version_of(plugin, FUNCTION.replace("2.0", "1.0")) != first


def test_a_helper_beside_the_method_counts_for_its_version(plugin):
    text = "def half(x):\n    return x / 2\n" + FUNCTION.replace(".mean()", ".mean() * half(1)")
    assert version_of(plugin, text) != version_of(plugin, text.replace("x / 2", "x / 3"))


def test_a_declared_version_is_taken_as_it_is(plugin):
    declared = FUNCTION.replace('"my_loss")', '"my_loss", version=4)')
    assert version_of(plugin, declared) == "4"
    assert version_of(plugin, declared.replace(".mean()", ".sum()")) == "4"


def test_the_zoos_own_methods_carry_declared_versions():
    assert all(REGISTRY.get(name).card.version.isdecimal() for name in REGISTRY.names())


def test_the_syntax_of_an_indented_piece_is_that_of_the_same_at_the_margin():
    assert normalised_syntax("    x = 1  # one\n    y = 2\n") == normalised_syntax("x = 1\ny = 2\n")


# --- plugins


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def my_loss(:\n    pass\n", r":2: syntax error in `def my_loss\(:`: "),
        ("x = 1\n\nundefined_name\n", r":4: NameError: name 'undefined_name' is not defined"),
        ("import no_such_module_anywhere\n", r":2: ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    ],
)
def test_a_broken_plugin_is_named_with_its_line(plugin, text, words):
    with pytest.raises(InputError, match=r"plugin: .*my_loss\.py" + words):
        plugin(text)


def test_a_plugin_that_is_not_there_or_no_python_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"plugin: no such file: .*missing\.py"):
        load_plugin(tmp_path / "missing.py")
    (tmp_path / "losses.txt").write_text("x = 1")
    with pytest.raises(InputError, match=r"losses\.txt: not a Python file; expected a name that ends in \.py"):
        load_plugin(tmp_path / "losses.txt")


def test_a_plugin_lives_under_a_private_name_and_hides_no_module(tmp_path):
    before = set(sys.modules)
    (tmp_path / "json.py").write_text("value = 1")
    load_plugin(tmp_path / "json.py")
    assert all(name.startswith("_kdzoo_plugin_") for name in set(sys.modules) - before)


def test_installed_packages_bring_methods_and_a_broken_one_breaks_nothing(tmp_path):
    (tmp_path / "their_losses.py").write_text("import kdzoo\n" + textwrap.dedent(FUNCTION))
    (tmp_path / "their_bug.py").write_text("1 / 0\n")
    meta = tmp_path / "their_losses-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: their-losses\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text("[kdzoo.methods]\ntheirs = their_losses\nbuggy = their_bug\n")
    code = "from kdzoo.contract.methods import REGISTRY; print(*REGISTRY.names()); print(REGISTRY.broken)"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True, timeout=120
    )
    names, broken = done.stdout.strip().splitlines()
    assert {"at", "crd", "fitnet", "hinton", "logits", "my_loss", "rkd"} <= set(names.split())
    assert broken == "{'buggy': 'their_bug: ZeroDivisionError: division by zero'}"
