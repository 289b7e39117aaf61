"""The checks of `kdzoo check`: every method of the zoo passes all, and each planted fault is found and said in words."""

import re

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from kdzoo.conformance.checks import CHECKS, GRADIENT, RUNS, Verdict, check
from kdzoo.contract.batch import Batch
from kdzoo.contract.method import Method
from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import load_plugin
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(REGISTRY, "_entries", dict(REGISTRY._all()))


def failed(cls: type[Method] | Method) -> dict[str, str]:
    """The words of each check that failed."""
    return {finding.check: finding.words for finding in check(cls) if finding.verdict is Verdict.failed}


def verdicts(cls: type[Method] | Method) -> dict[str, Verdict]:
    """How each check came out."""
    return {finding.check: finding.verdict for finding in check(cls)}


ZOO = [name for name in REGISTRY.names() if REGISTRY.get(name).__module__.startswith("kdzoo.")]


@pytest.mark.parametrize("name", ZOO)
def test_every_method_of_the_zoo_passes_every_check(name):
    found = verdicts(REGISTRY.get(name))
    assert list(found) == [one.heading for one in CHECKS]
    assert set(found.values()) <= {Verdict.ok, Verdict.not_applicable}
    assert found["one training step of two small networks"] is Verdict.ok
    if Need.NETWORK not in REGISTRY.get(name).card.needs.student:
        assert found[RUNS] is Verdict.ok


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("hinton", {"temperature": 1.0}),
        ("at", {"power": 1}),
        ("fitnet", {"stage": 0}),
        ("rkd", {"angle_weight": 0.0}),
        ("crd", {"negatives": 3}),
    ],
)
def test_they_pass_with_other_hyperparameters_too(name, hyperparameters):
    assert failed(create_method(name, **hyperparameters)) == {}


GRADCHECK = "gradcheck: analytic against numerical gradient"


def softened(logits: Tensor) -> Tensor:
    return F.softmax(logits.float() / 4, dim=1)


class Planted(Method):
    """A sound method, of which each fault below changes one thing."""

    temperature: float = Field(4.0, gt=0)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1).mean()


LOGITS = {"needs": Need.LOGITS, "zero_at_match": True}


def planted(cls: type[Method], **declared) -> type[Method]:
    return register("planted", **{**LOGITS, **declared})(cls)


def test_a_sound_method_passes():
    assert failed(planted(Planted)) == {}


def test_the_teacher_receives_a_gradient():
    class Leaking(Planted):
        def loss(self, student, teacher, batch, module):
            return (softened(student.logits) - softened(teacher.logits)).square().sum(1).mean()

    assert failed(planted(Leaking)) == {
        "no gradient reaches the teacher": "the teacher received a gradient through its logits: detach it, teacher.logits.detach()"
    }


def test_large_logits_give_nan():
    class LogOfSoftmax(Planted):
        def loss(self, student, teacher, batch, module):
            p, q = softened(teacher.logits.detach()), softened(student.logits)
            return (p * (p.log() - q.log())).sum(1).mean()

    found = failed(planted(LogOfSoftmax))
    assert list(found) == ["stable for large logits"]
    assert re.match(r"logits of 10000 give NaN or infinity: write F\.log_softmax\(x\)", found["stable for large logits"])


def test_something_undeclared_is_read():
    class Curious(Planted):
        def loss(self, student, teacher, batch, module):
            return super().loss(student, teacher, batch, module) + 0.0 * student.embedding.float().mean()

    words = failed(planted(Curious))["reads only what it declares"]
    assert words == "it reads Need.EMBEDDING of the student, which needs= does not declare: add it there"


def test_undeclared_labels_are_read():
    class Labelled(Planted):
        def loss(self, student, teacher, batch, module):
            right = (teacher.logits.argmax(1) == batch.targets).float()
            return (right * (softened(student.logits) - softened(teacher.logits.detach())).square().sum(1)).mean()

    assert "it reads Need.TARGETS of the batch" in failed(planted(Labelled))["reads only what it declares"]


def test_the_result_is_float16():
    class Narrow(Planted):
        def loss(self, student, teacher, batch, module):
            return super().loss(student, teacher, batch, module).half()

    words = failed(planted(Narrow))[RUNS]
    assert words == "expected float32 or float64, got torch.float16: compute in float32, for example with student.logits.float()"


def test_half_precise_outputs_are_not_widened():
    class AsTheyCome(Planted):
        def loss(self, student, teacher, batch, module):
            return (student.logits - teacher.logits.detach()).square().mean()

    words = failed(planted(AsTheyCome))["float32 loss from half-precision inputs"]
    assert words == "outputs in bfloat16 give a loss in bfloat16: convert first, for example student.logits.float()"


def test_autocast_lowers_the_loss():
    class Product(Planted):
        def loss(self, student, teacher, batch, module):
            s, t = student.logits.float(), teacher.logits.detach().float()
            return (s @ s.T - t @ t.T)[0, 0].square()

    words = failed(planted(Product))["float32 loss under autocast"]
    assert words.startswith("under autocast the loss is bfloat16: convert the result of matrix products")


def test_the_result_is_not_a_scalar():
    class Unreduced(Planted):
        def loss(self, student, teacher, batch, module):
            return (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1)

    words = failed(planted(Unreduced))[RUNS]
    assert words == "the loss has the shape (6,), one value per sample, expected a scalar: reduce it, for example with .mean()"


def test_a_built_parameter_is_not_used():
    class Idle(Planted):
        def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
            return nn.Linear(student.embedding, teacher.embedding)

    assert failed(planted(Idle)) == {
        "gradient reaches every parameter of build()": "no gradient reaches weight, bias of what build() made: "
        "use them in loss(), or do not build them"
    }


def test_random_numbers_come_from_the_global_generator():
    class Noisy(Planted):
        def loss(self, student, teacher, batch, module):
            noise = torch.rand(len(student.logits))
            return (noise * (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1)).mean()

    words = failed(planted(Noisy))["same batch, same loss"]
    assert words == "the same batch gives another loss the second time: draw random numbers with generator=batch.generator"


def test_random_numbers_from_the_batchs_generator_are_fine():
    class Seeded(Planted):
        def loss(self, student, teacher, batch, module):
            noise = torch.rand(len(student.logits), generator=batch.generator)
            return (noise * (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1)).mean()

    assert failed(planted(Seeded)) == {}


def test_the_outputs_are_changed_in_place():
    class Careless(Planted):
        def loss(self, student, teacher, batch, module):
            taught = teacher.logits.detach().div_(2)
            return (softened(student.logits) - softened(taught)).square().sum(1).mean()

    words = failed(planted(Careless))["changes no input in place"]
    assert words == (
        "it changes the teacher's logits in place, which other runs read too: write a new tensor instead, for example t = t / 4"
    )


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("batch.targets.zero_()", "it changes the batch's targets in place"),
        ("teacher.stages.pop()", "it changes the teacher's stages[2] in place"),
        ("teacher.second.logits.data.zero_()", "it changes the teacher's second view's logits in place"),
    ],
)
def test_anything_else_that_is_shared_is_changed(harm, words):
    class Careless(Planted):
        def loss(self, student, teacher, batch, module):
            exec(harm)
            return (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1).mean()

    needs = Need.LOGITS | Need.STAGES | Need.TARGETS | Pass.SECOND_VIEW
    assert failed(planted(Careless, needs=needs))["changes no input in place"].startswith(words)


def test_a_global_setting_is_changed_and_put_back():
    class Careless(Planted):
        def loss(self, student, teacher, batch, module):
            torch.set_default_dtype(torch.float64)
            return (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1).mean()

    words = failed(planted(Careless))["changes no global setting of torch"]
    assert words == "it changes torch's default dtype for the whole process, which a method must not do"
    assert torch.get_default_dtype() == torch.float32


def test_it_is_not_zero_at_match_though_declared():
    class CrossEntropy(Planted):
        def loss(self, student, teacher, batch, module):
            p = softened(teacher.logits.detach())
            return -(p * F.log_softmax(student.logits.float() / 4, dim=1)).sum(1).mean()

    found = failed(planted(CrossEntropy))
    assert list(found) == ["zero where the student equals the teacher"]
    words = found["zero where the student equals the teacher"]
    assert re.match(r"zero_at_match=True is declared, but the loss is 1\.\d+ where student and teacher agree", words)
    assert failed(planted(CrossEntropy, zero_at_match=False)) == {}


def test_the_student_is_detached():
    class Deaf(Planted):
        def loss(self, student, teacher, batch, module):
            return (softened(student.logits).detach() - softened(teacher.logits).detach()).square().sum(1).mean()

    found = failed(planted(Deaf))
    assert found == {GRADIENT: "the loss carries no gradient: is the student detached (.detach(), torch.no_grad(), .argmax())?"}


def test_what_it_declares_is_not_what_it_trains():
    class Elsewhere(Planted):
        def build(self, student, teacher, data):
            return nn.Linear(5, 5)

        def loss(self, student, teacher, batch, module):
            return (module(student.logits.detach().float()) - teacher.logits.detach().float()).square().mean()

    words = failed(planted(Elsewhere, zero_at_match=False))["gradient reaches the student"]
    assert words.startswith("no gradient reaches student.logits: is it detached")


def test_its_gradient_is_not_that_of_its_value():
    class Half(Planted):
        def loss(self, student, teacher, batch, module):
            s, t = student.logits, teacher.logits.detach()
            wide = (s - t).double() if s.dtype == torch.float64 else (s - t).float()
            return (wide * wide.detach()).mean()

    found = failed(planted(Half))
    assert list(found) == [GRADCHECK]
    assert found[GRADCHECK].startswith("the gradient is not the derivative of the loss: is a part of the student detached?")


def test_what_is_detached_on_purpose_is_constant_in_the_comparison():
    class Weighed(Planted):
        def loss(self, student, teacher, batch, module):
            s, t = student.logits, teacher.logits.detach()
            wide = (s - t).double() if s.dtype == torch.float64 else (s - t).float()
            return (wide * wide.detach()).mean()

    assert failed(planted(Weighed, detaches="the weight of each difference")) == {}


def test_a_root_has_an_infinite_gradient_at_zero():
    class Distance(Planted):
        def loss(self, student, teacher, batch, module):
            return (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1).sqrt().mean()

    words = failed(planted(Distance))["finite gradient at match, for equal samples and for zeros"]
    assert words.startswith("where the student agrees with the teacher its loss or gradient is NaN or infinite: keep sqrt")


def test_a_batch_of_another_size_breaks_it():
    class SixOnly(Planted):
        def loss(self, student, teacher, batch, module):
            weights = torch.linspace(0, 1, 6)
            return (weights * (softened(student.logits) - softened(teacher.logits).detach()).square().sum(1)).mean()

    words = failed(planted(SixOnly))["any batch size"]
    assert re.match(r".*test_conformance\.py:\d+: RuntimeError: The size of tensor", words)
    assert words.endswith("The first dimension is the batch, whose size varies: take it from the tensors, for example len(student.logits)")


def test_stages_of_unequal_size_break_it():
    class SameSize(Method):
        def loss(self, student, teacher, batch, module):
            pairs = zip(student.stages, teacher.stages, strict=True)
            return sum((s.double().mean(1) - t.detach().double().mean(1)).square().mean() for s, t in pairs)

    words = failed(planted(SameSize, needs=Need.STAGES))[RUNS]
    assert "The shapes differ (stages[2]: student 2 pixels high, teacher 4 pixels high)" in words
    assert "kdzoo.projector(student.stages[2], teacher.stages[2])" in words


def test_something_that_matters_is_kept_outside_the_state():
    class Forgetful(Planted):
        def build(self, student, teacher, data):
            module = nn.Module()
            module.memory = torch.rand(())
            return module

        def loss(self, student, teacher, batch, module):
            return module.memory * super().loss(student, teacher, batch, module)

    found = failed(planted(Forgetful))
    assert list(found) == ["state_dict round trip"]
    assert found["state_dict round trip"].endswith("keep everything that matters in parameters or buffers")


def test_a_bound_is_declared_and_not_held():
    class Lenient(Planted):
        sharpness: float = Field(1.0, ge=0)

        @field_validator("sharpness", mode="before")
        @classmethod
        def _positive(cls, value: float) -> float:
            return abs(value)

    assert failed(planted(Lenient)) == {
        "refuses hyper-parameters outside their bounds": "sharpness = -1.0 is accepted, though it is declared with Ge(ge=0)"
    }


def test_the_teachers_batch_statistics_stay_whatever_a_users_method_does_to_its_copy():
    class Retraining(Method):
        def loss(self, student, teacher, batch, module):
            teacher.network.network.model.bn1.running_mean.add_(1)
            return (student.logits - teacher.logits.detach()).float().square().mean()

    found = failed(planted(Retraining, needs=Needs(Need.LOGITS, Need.LOGITS | Need.NETWORK)))
    assert "one training step of two small networks" not in found


def test_any_other_bug_is_reported_with_its_name():
    class Broken(Planted):
        def loss(self, student, teacher, batch, module):
            return student.logits.mean() / {}["weight"]

    found = failed(planted(Broken))
    assert list(found) == [RUNS]
    assert re.fullmatch(r".*test_conformance\.py:\d+: KeyError: 'weight'", found[RUNS])


def test_a_method_reads_the_second_view_and_the_classifier():
    class TwoViews(Method):
        def loss(self, student, teacher, batch, module):
            again = student.second.logits.float() - teacher.second.logits.detach().float()
            through = teacher.classifier(teacher.embedding.detach()).detach().float()
            return again.square().mean() + (student.logits.float() - through).square().mean()

    found = failed(planted(TwoViews, needs=Need.LOGITS | Need.EMBEDDING | Need.CLASSIFIER | Pass.SECOND_VIEW, zero_at_match=False))
    assert found == {}


def test_a_method_that_reads_the_networks_is_checked_on_real_ones():
    class Saliency(Method):
        def loss(self, student, teacher, batch, module):
            images = batch.inputs.float()
            with torch.no_grad():
                said = teacher.network(images)
            return (student.network(images) - said).square().mean()

    found = verdicts(planted(Saliency, needs=Need.NETWORK, zero_at_match=False))
    assert found["one training step of two small networks"] is Verdict.ok
    assert found[RUNS] is Verdict.not_applicable


def test_hyperparameters_without_defaults_are_named():
    class Demanding(Planted):
        sharpness: float

    with pytest.raises(InputError, match=r"planted\.sharpness: missing"):
        check(planted(Demanding))
    assert failed(planted(Demanding)(sharpness=1.0)) == {}


def test_a_method_may_widen_to_float32_before_what_it_learns():
    class Regressed(Planted):
        def build(self, student, teacher, data):
            return nn.Linear(student.embedding, teacher.embedding)

        def loss(self, student, teacher, batch, module):
            return (module(student.embedding.float()) - teacher.embedding.detach().float()).square().mean()

    assert failed(planted(Regressed, needs=Need.EMBEDDING, zero_at_match=False)) == {}


def test_a_wrong_gradient_in_float32_is_found_as_well():
    class Half(Planted):
        def loss(self, student, teacher, batch, module):
            apart = student.logits.float() - teacher.logits.detach().float()
            return (apart * apart.detach()).mean()

    assert list(failed(planted(Half))) == [GRADCHECK]


def test_a_users_own_file_is_checked(tmp_path):
    file = tmp_path / "my_losses.py"
    file.write_text(
        "import kdzoo\n"
        "@kdzoo.register('good_loss')\n"
        "def good_loss(student, teacher, batch, *, temperature: float = 4.0):\n"
        "    return ((student.logits.float() - teacher.logits.detach().float()) / temperature).square().mean()\n"
        "@kdzoo.register('bad_loss')\n"
        "def bad_loss(student, teacher, batch):\n"
        "    return (student.logits.float() - teacher.logits.float()).square().mean()\n"
    )
    load_plugin(file)
    assert failed(REGISTRY.get("good_loss")) == {}
    assert list(failed(REGISTRY.get("bad_loss"))) == ["no gradient reaches the teacher"]


def test_checking_leaves_the_global_generator_where_it_was():
    state = torch.random.get_rng_state()
    check(REGISTRY.get("crd"))
    assert torch.equal(torch.random.get_rng_state(), state)
