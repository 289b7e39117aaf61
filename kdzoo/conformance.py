"""The checks that every method must pass: run by the tests over the registry, and by `kdzoo check` over a user's file."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.diagnosis import BUILD, Networks, diagnose, fault_of_loss, fault_of_module, layers_outside_build, shown
from kdzoo.contract.method import LossWithAux, Method, instance_of, stages_handed
from kdzoo.contract.needs import OWN_WIDTH, PASSES, PER_SAMPLE, Need, Needs
from kdzoo.contract.objective import Objective, Term
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.models.build import build_network
from kdzoo.models.measure import probe
from kdzoo.models.network import Learner, freeze
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import NetworkSpec
from kdzoo.seeds import generator, global_stream
from kdzoo.text import first_line

CLASSES, SAMPLES, BATCH = 5, 40, 6
STUDENT = Shapes(CLASSES, 5, (StageShape(3, 8, 8, 1), StageShape(4, 4, 4, 2), StageShape(5, 2, 2, 4)))
TEACHER = Shapes(CLASSES, 8, (StageShape(4, 8, 8, 1), StageShape(6, 4, 4, 2), StageShape(8, 4, 4, 2)))


class Verdict(StrEnum):
    """How a check came out. skipped: not run, since it would only repeat the fault of a check before it."""

    ok = "ok"
    failed = "FAILED"
    not_applicable = "not applicable"
    skipped = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found; `words` say what is wrong and what to write instead, or why it was not run.

    warnings: what Python and torch warned of in the method's own file, as (place, text), each once.
    """

    check: str
    verdict: Verdict = Verdict.ok
    words: str = ""
    warnings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Check:
    """A check by its heading.

    run: raises Fault where the method fails it. after: the checks whose fault this one would only repeat. unless: why it does
    not apply to a method, in words; empty where it does.
    """

    heading: str
    run: Callable[[Method], None]
    after: tuple[str, ...] = ()
    unless: Callable[[Method], str] = lambda method: ""


class Fault(Exception):
    """A check's complaint, in words for the method's author."""


@dataclass
class Case:
    """A method with its built module and made-up outputs of two networks."""

    method: Method
    module: nn.Module
    student: dict[Need, Any]
    teacher: dict[Need, Any]
    read: dict[str, Need]
    seed: int = 0

    def loss(self) -> Tensor:
        """The loss of one batch, with the auxiliary loss where there is one."""
        result = self._result()
        return result.loss + result.auxiliary if isinstance(result, LossWithAux) else result

    def distilled(self) -> Tensor:
        """The loss of one batch without the auxiliary loss."""
        result = self._result()
        return result.loss if isinstance(result, LossWithAux) else result

    def _result(self) -> Tensor | LossWithAux:
        result = self.method.loss(*self.given(), self.module)
        for part in result if isinstance(result, LossWithAux) else (result,):
            if fault := fault_of_loss(part):
                raise Fault(fault)
        return result

    def given(self) -> tuple[Outputs, Outputs, Batch]:
        """Outputs and a batch that hold everything and note what is read."""
        batch = Batch(
            inputs=torch.zeros(self.batch, 3, 8, 8, dtype=torch.uint8),
            targets=torch.arange(self.batch) % CLASSES,
            index=torch.arange(self.batch) + CLASSES * 2,
            clock=Progress(0, 2, 3, 10),
            generator=generator(self.seed, "conformance"),
            on_read=self._recorder("batch"),
        )
        student = Outputs.of(self.student, owner="student", on_read=self._recorder("student"))
        teacher = Outputs.of(self.teacher, owner="teacher", on_read=self._recorder("teacher"))
        return student, teacher, batch

    @property
    def batch(self) -> int:
        return len(self.student[Need.LOGITS])

    def _recorder(self, owner: str) -> Callable[[Need], None]:
        def record(need: Need) -> None:
            self.read[owner] = self.read.get(owner, Need.NOTHING) | need

        return record


def case(
    method: Method,
    *,
    student: Shapes = STUDENT,
    teacher: Shapes = TEACHER,
    batch: int = BATCH,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
    seed: int = 0,
) -> Case:
    """A fresh case with random outputs of the given shapes; both networks' tensors take gradients, so that leaks show."""
    targets = torch.arange(SAMPLES) % CLASSES
    with global_stream(seed, "classifiers"):
        student, teacher = (
            replace(shapes, classifier=nn.Linear(shapes.embedding, shapes.classes).requires_grad_(False)) for shapes in (student, teacher)
        )
    with global_stream(seed, "build"):
        module = method.build(student, teacher, DataFacts(SAMPLES, CLASSES, targets))
    if fault := fault_of_module(module):
        raise Fault(fault)
    random = generator(seed, "outputs")

    def made(shapes: Shapes) -> dict[Need, Any]:
        def draw(*shape: int, factor: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=random) * factor).to(dtype).requires_grad_()

        logits = draw(batch, shapes.classes, factor=scale)
        return {
            Need.LOGITS: logits,
            Need.MEMBERS: [logits, logits],
            Need.EMBEDDING: draw(batch, shapes.embedding),
            Need.STAGES: [draw(batch, s.channels, s.height, s.width) for s in shapes.stages],
            Need.PREACT: [draw(batch, s.channels, s.height, s.width) for s in shapes.stages],
            Need.DISTILLED: draw(batch, shapes.classes, factor=scale),
            Need.CLASSIFIER: copy.deepcopy(cast(nn.Module, shapes.classifier)).to(dtype),
        }

    def seen(shapes: Shapes, owner: str) -> dict[Need, Any]:
        return {**made(shapes), **{other: Outputs.of(made(shapes), owner=f"{owner}'s {other.name}") for other in PASSES}}

    return Case(method, module.train(), seen(student, "student"), seen(teacher, "teacher"), {})


def check(method: Method | type[Method]) -> tuple[Finding, ...]:
    """Every check on a method (a class is taken with its declared hyper-parameters); what each found.

    Methods that read the network itself have no made-up outputs: most checks do not apply to them.
    Raises InputError for a class whose hyper-parameters have no defaults.
    """
    instance = method if isinstance(method, Method) else instance_of(method, {})
    findings: dict[str, Finding] = {}
    for one in CHECKS:
        findings[one.heading] = _finding(one, instance, findings)
    return tuple(findings.values())


def _finding(one: Check, method: Method, before: Mapping[str, Finding]) -> Finding:
    repeated = next((heading for heading in one.after if before[heading].verdict in (Verdict.failed, Verdict.skipped)), None)
    if repeated is not None:
        return Finding(one.heading, Verdict.skipped, before[repeated].words if before[repeated].verdict is Verdict.skipped else repeated)
    if reason := one.unless(method):
        return Finding(one.heading, Verdict.not_applicable, reason)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        fault = _fault(one, method)
    told = dict.fromkeys((f"{shown(w.filename)}:{w.lineno}", str(w.message)) for w in heard if _is_the_users(w.filename, method))
    return Finding(one.heading, Verdict.failed if fault else Verdict.ok, fault, tuple(told))


def _is_the_users(file: str, method: Method) -> bool:
    """Whether a warning comes from a line of the method's own file, which its author can change."""
    return method.card.outside and file == method.card.definition[0]


def _fault(one: Check, method: Method) -> str:
    """What a check complains of, with the line of the method's own code where there is one; empty where it passes."""
    try:
        with guard.watched(f"method {method.card.name!r}"):
            one.run(method)
    except guard.Interference as error:  # a setting that was changed has a check of its own
        return str(error) if isinstance(error.__cause__, SystemExit) else ""
    except Fault as fault:
        return str(fault)
    except Exception as error:  # a method's own bug is what the check is looking for
        needs = method.card.needs
        return diagnose(error, method.card.definition[0], Networks(STUDENT, TEACHER, needs.student | needs.teacher))
    return ""


def builds_its_layers(method: Method) -> None:
    """Neither on the class, nor at module level, nor in each call of the loss."""
    found = layers_outside_build(type(method), method)
    during: list[str] = []
    if Need.NETWORK not in method.card.needs.student:
        made = _case_or_none(method)
        hook = register_module_parameter_registration_hook(lambda module, name, value: during.append(type(module).__name__))
        try:
            if made is not None:
                made.method.loss(*made.given(), made.module)
        except Exception:  # another check tells; here it only matters what was made until then
            during = list(during)
        finally:
            hook.remove()
    if during:
        found.append(f"a new {during[0]} in every call of loss(), with new random weights")
    if found:
        raise Fault(f"it has layers that are never trained: {'; '.join(found)}. Layers: {BUILD}")


def _case_or_none(method: Method) -> Case | None:
    try:
        return case(method)
    except Exception:  # its build fails, of which the next check tells
        return None


def is_a_finite_scalar(method: Method) -> None:
    loss = case(method).loss()
    if loss.dtype not in (torch.float32, torch.float64):
        raise Fault(f"expected float32 or float64, got {loss.dtype}: compute in float32, for example with student.logits.float()")
    if not torch.isfinite(loss):
        raise Fault(
            f"the loss of random logits and maps around zero is {loss.item()}: is there a log, a root or a division of something that is "
            "zero or negative?"
        )


def reads_only_what_it_declares(method: Method) -> None:
    made = case(method)
    made.loss()
    needs = method.card.needs
    of_teacher = needs.teacher | needs.settled(preact=True).teacher
    asked = {"student": needs.student, "teacher": of_teacher, "batch": needs.student}
    for owner, read in made.read.items():
        extra = read & ~asked[owner]
        if extra:
            names = " | ".join(f"Need.{n.name}" for n in Need if n in extra and n.value)
            raise Fault(f"it reads {names} of the {owner}, which needs= does not declare: add it there")


def gradient_reaches_the_student(method: Method) -> None:
    made = case(method)
    _backward(made)
    declared = [need for need in PER_SAMPLE if need in method.card.needs.student]
    reached = [need for need in declared if any(t.grad is not None and bool(t.grad.any()) for t in _tensors(made.student[need]))]
    if declared and not reached:
        names = " and ".join(f"student.{str(need.name).lower()}" for need in declared)
        raise Fault(f"no gradient reaches {names}: is it detached (.detach(), torch.no_grad(), .argmax()), or not used?")


def gradient_reaches_every_built_parameter(method: Method) -> None:
    made = case(method)
    _backward(made)
    idle = [name for name, p in made.module.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise Fault(f"no gradient reaches {', '.join(idle)} of what build() made: use them in loss(), or do not build them")


def no_gradient_reaches_the_teacher(method: Method) -> None:
    made = case(method)
    _backward(made)
    for need in PER_SAMPLE:
        if any(t.grad is not None and bool(t.grad.any()) for t in _tensors(made.teacher[need])):
            name = str(need.name).lower()
            raise Fault(f"the teacher received a gradient through its {name}: detach it, teacher.{name}.detach()")


def leaves_the_outputs_alone(method: Method) -> None:
    made = case(method)
    student, teacher, batch = made.given()

    def read() -> dict[str, Tensor]:
        found = [*guard.named("the student's", student), *guard.named("the teacher's", teacher)]
        found += [(f"the batch's {name}", tensor) for name, tensor in batch.tensors()]
        once = {id(tensor): (name, tensor) for name, tensor in reversed(found)}  # the first of several names
        return dict(reversed(once.values()))

    before = {name: tensor.detach().clone() for name, tensor in read().items()}
    with torch.no_grad():
        method.loss(student, teacher, batch, made.module)
    after = read()
    changed = [name for name, old in before.items() if name not in after or not torch.equal(old, after[name])]
    if changed:
        raise Fault(
            f"it changes {' and '.join(changed)} in place, which other runs read too: write a new tensor instead, for example t = t / 4"
        )


def leaves_global_settings_alone(method: Method) -> None:
    before = guard.settings()
    made = case(method)
    loss = made.loss()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    method.ramp(Progress(0, 2, 3, 10))
    if changed := guard.put_back(before):
        raise Fault(f"it changes {' and '.join(changed)} for the whole process, which a method must not do")


def is_reproducible(method: Method) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = case(method).loss()
        torch.manual_seed(1)
        second = case(method).loss()
    if not torch.equal(first, second):
        raise Fault("the same batch gives another loss the second time: draw random numbers with generator=batch.generator")


def survives_large_logits(method: Method) -> None:
    for scale in (1e2, 1e4):
        made = case(method, scale=scale)
        loss = _backward(made)
        gradients = [t.grad for t in _tensors(made.student[Need.LOGITS]) if t.grad is not None]
        if not torch.isfinite(loss) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            raise Fault(
                f"logits of {scale:g} give NaN or infinity: write F.log_softmax(x) instead of F.softmax(x).log(), x.logsumexp() instead of "
                "x.exp().sum().log()"
            )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def returns_float32_from_half_precision(method: Method) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        loss = case(method, dtype=dtype).loss()
        if loss.dtype not in (torch.float32, torch.float64):
            raise Fault(
                f"outputs in {_short(dtype)} give a loss in {_short(loss.dtype)}: convert first, for example student.logits.float()"
            )
        if not torch.isfinite(loss):
            raise Fault(f"outputs in {_short(dtype)} give the loss {loss.item()}: convert first, for example student.logits.float()")


def returns_float32_under_autocast(method: Method) -> None:
    made = case(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made.loss()
    if loss.dtype not in (torch.float32, torch.float64):
        raise Fault(f"under autocast the loss is {_short(loss.dtype)}: convert the result of matrix products, for example (a @ b).float()")
    if not torch.isfinite(loss):
        raise Fault(f"under autocast the loss is {loss.item()}")


def has_a_finite_gradient_everywhere(method: Method) -> None:
    """At match, for a batch of one image repeated, and for maps and vectors that are all zero, as a dead ReLU gives them."""
    for words, change in DEGENERATE.items():
        made = case(method, student=TEACHER, teacher=TEACHER)
        for need in PER_SAMPLE:
            changed = [
                change(s, t).detach().requires_grad_()
                for s, t in zip(_tensors(made.student[need]), _tensors(made.teacher[need]), strict=True)
            ]
            made.student[need] = changed if isinstance(made.student[need], list) else changed[0]
        loss = _backward(made)
        gradients = [t.grad for need in PER_SAMPLE for t in _tensors(made.student[need]) if t.grad is not None]
        if not torch.isfinite(loss) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            raise Fault(
                f"where {words} its loss or gradient is NaN or infinite: keep sqrt, log, norms and divisions away from zero, "
                "for example with .clamp(min=1e-12)"
            )


DEGENERATE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the student agrees with the teacher": lambda student, teacher: teacher.clone(),
    "all images of the batch look the same to the student": lambda student, teacher: student[:1].expand_as(student).clone(),
    "the student's outputs are all zero": lambda student, teacher: torch.zeros_like(student),
}


def takes_batches_of_any_size(method: Method) -> None:
    for batch in (2, 7, 16):
        loss = case(method, batch=batch).loss()
        if not torch.isfinite(loss):
            raise Fault(f"a batch of {batch} gives the loss {loss.item()}")


def takes_equal_and_different_shapes(method: Method) -> None:
    flat = Shapes(CLASSES, 4, (StageShape(3, 6, 10, 1), StageShape(4, 3, 5, 2)))
    for student, teacher in ((TEACHER, TEACHER), (TEACHER, STUDENT), (flat, flat)):
        loss = case(method, student=student, teacher=teacher).loss()
        if not torch.isfinite(loss):
            raise Fault(f"stages {student.stages} under {teacher.stages} give the loss {loss.item()}")


def is_zero_at_match(method: Method) -> None:
    made = case(method, student=TEACHER, teacher=TEACHER)
    for need in PER_SAMPLE:
        made.student[need] = copy.deepcopy(made.teacher[need])
    loss = made.distilled()
    if abs(loss.item()) > 1e-6:
        raise Fault(
            f"zero_at_match=True is declared, but the loss is {loss.item():g} where student and teacher agree: "
            "leave it out, or fix the loss"
        )


def gradient_is_right(method: Method) -> None:
    made = _for_differences(method)
    declared = [need for need in PER_SAMPLE if need in method.card.needs.student]
    tensors = [t for need in declared for t in _tensors(made.student[need])]

    def loss(*inputs: Tensor) -> Tensor:
        given = (value.to(tensors[0].dtype) for value in inputs)
        for need in declared:
            value = made.student[need]
            made.student[need] = [next(given) for _ in value] if isinstance(value, list) else next(given)
        with held:
            return made.loss().double()

    held: AbstractContextManager[object] = Held() if method.card.held else nullcontext()
    exact = tensors[0].dtype == torch.float64
    eps, atol, rtol = (1e-6, 1e-4, 1e-3) if exact else (1e-3, 1e-3 * max(1.0, abs(made.loss().item())), 5e-2)
    inputs = [t.detach().double().requires_grad_() for t in tensors]
    try:
        torch.autograd.gradcheck(loss, inputs, eps=eps, atol=atol, rtol=rtol, fast_mode=True, nondet_tol=1e-12)
    except GradcheckError as error:
        raise Fault(
            "the gradient is not the derivative of the loss: is a part of the student detached? (register it with held=... where that is "
            f"intended; torch.autograd.gradcheck: {first_line(error).rstrip(',')})"
        ) from error


class Held(TorchFunctionMode):
    """Gives back, call by call, what `detach` gave in the first block: constants that numerical differences must not move.

    For methods registered with `held`: the derivative to compare theirs with is the one in which what they detach is constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first: list[Tensor] | None = None
        self.given: list[Tensor] = []
        self.calls = 0

    def __enter__(self) -> None:
        self.given, self.calls = ([], 0) if self.first is None else (self.first, 0)
        super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        self.first = self.given
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.detach:
            return func(*args, **(kwargs or {}))
        if self.first is None:
            self.given.append(func(*args).clone())
        self.calls += 1
        return self.given[self.calls - 1]


def _for_differences(method: Method) -> Case:
    """A small case at rest, in float64; in float32 for a method that computes in float32 whatever comes in."""
    for dtype in (torch.float64, torch.float32):
        made = case(method, batch=3, dtype=dtype)
        made.module.to(dtype).eval()
        for buffer in made.module.buffers():
            if buffer.is_floating_point() and buffer.ndim == 0:
                buffer.fill_(1.0)  # constants that the first batch would set, and that numerical differences must not move
        try:
            if made.loss().dtype == dtype:
                return made
        except RuntimeError:  # float32 of its own making has met its float64 module; in float32 any other fault shows again
            continue
    return made


def state_round_trip_changes_nothing(method: Method) -> None:
    made, other = case(method), case(method, seed=1)
    made.loss()
    other.module.load_state_dict(made.module.state_dict())
    other.student, other.teacher = made.student, made.teacher
    if not torch.equal(made.loss(), other.loss()):
        raise Fault("the module saved and loaded (state_dict) gives another loss: keep everything that matters in parameters or buffers")


def refuses_hyperparameters_out_of_bounds(method: Method) -> None:
    for name, field in type(method).model_fields.items():
        for bound in field.metadata:
            for wrong in _outside(bound):
                try:
                    type(method)(**{**method.model_dump(), name: wrong})
                except ValidationError as error:
                    if name not in str(error):
                        raise Fault(f"{name} = {wrong} is refused without naming {name}") from error
                else:
                    raise Fault(f"{name} = {wrong} is accepted, though it is declared with {bound}")


def _outside(bound: object) -> Iterator[float]:
    match bound:
        case Gt():
            yield float(bound.gt)  # type: ignore[arg-type]
        case Lt():
            yield float(bound.lt)  # type: ignore[arg-type]
        case Ge():
            yield float(bound.ge) - 1  # type: ignore[arg-type]
        case Le():
            yield float(bound.le) + 1  # type: ignore[arg-type]


def is_continuous_in_alpha(method: Method) -> None:
    """Near each end of an alpha grid the weighted sum is near what it is at that end."""
    alone, taught = _weighted(method, 0.0), _weighted(method, 1.0)
    for alpha, limit in ((1e-7, alone), (1 - 1e-7, taught)):
        total = _weighted(method, alpha)
        if not abs(total - limit) <= 1e-4 * max(1.0, abs(alone), abs(taught)):
            raise Fault(f"alpha = {alpha:g} gives {total:g}, but its limit is {limit:g}: the loss jumps at the end of an alpha grid")


def _weighted(method: Method, alpha: float) -> float:
    """The real weighted sum (1 - alpha) CE + alpha scale D of one batch."""
    made = case(method)
    terms = [Term(method, alpha * method.card.scale)] if alpha else []
    stages = [(i, i) for i in range(len(STUDENT.stages))]
    objective = Objective(1 - alpha, terms, {method.card.name: made.module}, stages=stages, label_smoothing=0.0, seed=0)
    student, teacher, batch = made.given()
    return float(objective(student, teacher, batch).total.item())


def trains_a_tiny_pair(method: Method) -> None:
    """One real step of two small timm networks: the student moves, the teacher does not."""
    name = "deit_tiny_distilled_patch16_224" if Need.DISTILLED in method.card.needs.student else "test_resnet"
    spec, other = (NetworkSpec(name=n, classes=CLASSES, start="random") for n in (name, "test_resnet"))
    like: dict[str, Any] = {"channels": 3, "side": 64, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    student, teacher = build_network(spec, **like, seed=0), freeze(build_network(other, **like, seed=1))
    probed = [probe(network, (3, 64, 64)) for network in (student, teacher)]
    shapes = [replace(found, fresh=lambda: Learner(build_network(spec, **like, seed=2))) for found in probed]
    stages = pair_stages(shapes[0], shapes[1], "deep")
    ours, theirs = stages_handed(method, stages)
    facts = DataFacts(SAMPLES, CLASSES, torch.arange(SAMPLES) % CLASSES)
    with global_stream(0, "build"):
        module = method.build(shapes[0].pick(ours), shapes[1].pick(theirs), facts)
    objective = Objective(1.0, [Term(method, 1.0)], {method.card.name: module}, stages=stages, label_smoothing=0.0, seed=0)
    needs: Needs = objective.needs
    images = torch.randint(0, 256, (BATCH, 3, 64, 64), generator=generator(0, "images"), dtype=torch.uint8)
    batch = Batch(
        inputs=images,
        targets=torch.arange(BATCH) % CLASSES,
        index=torch.arange(BATCH),
        clock=Progress(0, 1, 0, 1),
        generator=generator(0, "step"),
    )
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD([*student.parameters(), *objective.parameters()], lr=1e-3)
    with torch.no_grad():
        taught = _seen(teacher, images, needs.teacher)
    losses = objective(_seen(student, images, needs.student), taught, batch)
    losses.total.backward()
    if not all(bool(torch.isfinite(p.grad).all()) for p in student.parameters() if p.grad is not None):
        raise Fault("a real step gives gradients that are NaN or infinite")
    optimizer.step()
    if not all(torch.equal(before[name], value) for name, value in teacher.state_dict().items()):
        raise Fault("a real step changes the teacher's weights or statistics")


def _seen(network: Any, images: Tensor, need: Need) -> Outputs:
    given: Outputs = network(images, need & ~PASSES)
    for other in PASSES & need:
        given = given.beside(other, network(images.flip(-1), need & ~PASSES))
    return given


def _backward(made: Case) -> Tensor:
    loss = made.loss()
    if not loss.requires_grad:
        raise Fault("the loss carries no gradient: is the student detached (.detach(), torch.no_grad(), .argmax())?")
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def _tensors(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, list) else [value]


def _reads_the_network(method: Method) -> str:
    if Need.NETWORK in method.card.needs.student:
        return "it reads the network itself, for which there are no made-up outputs; one training step below runs it"
    return ""


def _unless(reason: str, applies: Callable[[Method], bool]) -> Callable[[Method], str]:
    """Why a check does not apply: `reason`, or that the method reads the network itself."""
    return lambda method: _reads_the_network(method) or ("" if applies(method) else reason)


def _reads(need: Need) -> Callable[[Method], bool]:
    return lambda method: any(one in method.card.needs.student | method.card.needs.teacher for one in need)


def _learns(method: Method) -> bool:
    return any(parameter.requires_grad for parameter in case(method).module.parameters())


def _has_bounds(method: Method) -> bool:
    return any(True for field in type(method).model_fields.values() for bound in field.metadata for _ in _outside(bound))


LAYERS, RUNS, DECLARED, GRADIENT = (
    "builds its layers in build()",
    "returns a finite scalar",
    "reads only what it declares",
    "gradient reaches the student",
)
IN_PLACE, DETERMINISTIC, SIZES, WIDTHS = (
    "changes no input in place",
    "same batch, same loss",
    "any batch size",
    "equal and different widths and map sizes",
)

CHECKS: tuple[Check, ...] = (
    Check(LAYERS, builds_its_layers),
    Check(RUNS, is_a_finite_scalar, unless=_reads_the_network),
    Check(DECLARED, reads_only_what_it_declares, (RUNS,), _reads_the_network),
    Check(
        GRADIENT,
        gradient_reaches_the_student,
        (RUNS, DECLARED),
        _unless("it reads nothing of the student", lambda m: bool(m.card.needs.student & PER_SAMPLE)),
    ),
    Check(
        "gradient reaches every parameter of build()",
        gradient_reaches_every_built_parameter,
        (RUNS, GRADIENT),
        _unless("build() makes nothing that learns", _learns),
    ),
    Check(
        "no gradient reaches the teacher",
        no_gradient_reaches_the_teacher,
        (RUNS, GRADIENT),
        _unless("it reads nothing of the teacher", lambda method: bool(method.card.needs.teacher & PER_SAMPLE)),
    ),
    Check(IN_PLACE, leaves_the_outputs_alone, (RUNS,), _reads_the_network),
    Check("changes no global setting of torch", leaves_global_settings_alone, (RUNS,), _reads_the_network),
    Check(DETERMINISTIC, is_reproducible, (RUNS, LAYERS), _reads_the_network),
    Check(
        "stable for large logits",
        survives_large_logits,
        (RUNS, GRADIENT),
        _unless("it reads no logits of the student", lambda method: Need.LOGITS in method.card.needs.student),
    ),
    Check("float32 loss from half-precision inputs", returns_float32_from_half_precision, (RUNS,), _reads_the_network),
    Check("float32 loss under autocast", returns_float32_under_autocast, (RUNS,), _reads_the_network),
    Check(SIZES, takes_batches_of_any_size, (RUNS,), _reads_the_network),
    Check(
        WIDTHS,
        takes_equal_and_different_shapes,
        (RUNS, LAYERS),
        _unless("it reads only class scores, whose number is the same", _reads(OWN_WIDTH)),
    ),
    Check(
        "finite gradient at match, for equal samples and for zeros",
        has_a_finite_gradient_everywhere,
        (RUNS, GRADIENT, WIDTHS),
        _reads_the_network,
    ),
    Check(
        "zero where the student equals the teacher",
        is_zero_at_match,
        (RUNS, WIDTHS),
        _unless("zero_at_match=True is not declared", lambda method: method.card.zero_at_match),
    ),
    Check(
        "gradcheck: analytic against numerical gradient",
        gradient_is_right,
        (RUNS, GRADIENT, IN_PLACE, DETERMINISTIC, SIZES),
        _unless("it reads no tensor of the student", lambda method: bool(method.card.needs.student & PER_SAMPLE)),
    ),
    Check("state_dict round trip", state_round_trip_changes_nothing, (RUNS, IN_PLACE, DETERMINISTIC), _reads_the_network),
    Check(
        "refuses hyper-parameters outside their bounds",
        refuses_hyperparameters_out_of_bounds,
        unless=lambda method: "" if _has_bounds(method) else "no hyper-parameter has bounds",
    ),
    Check("continuous in alpha at 0 and 1", is_continuous_in_alpha, (RUNS, DECLARED), _reads_the_network),
    Check("one training step of two small networks", trains_a_tiny_pair, (RUNS, DECLARED, WIDTHS)),
)
"""every check, in the order in which they are run"""
