"""The checks that every method must pass: run by the tests over the registry, and by `kdzoo check` over a user's file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ValidationError
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError
from torch.overrides import TorchFunctionMode

from kdzoo import guard
from kdzoo.errors import InputError, KdzooError, problems_of
from kdzoo.method import LossAndAuxiliary, Method, stages_handed
from kdzoo.models.network import Learner, build_network, freeze, pair_stages, probe
from kdzoo.objective import Objective, Term
from kdzoo.seeds import generator, global_stream
from kdzoo.signals import PASSES, Batch, Clock, DataFacts, Need, Needs, Outputs, Shapes, StageShape
from kdzoo.spec import NetworkSpec

CLASSES, SAMPLES, BATCH = 5, 40, 6
STUDENT = Shapes(CLASSES, 5, (StageShape(3, 8, 8, 1), StageShape(4, 4, 4, 2), StageShape(5, 2, 2, 4)))
TEACHER = Shapes(CLASSES, 8, (StageShape(4, 8, 8, 1), StageShape(6, 4, 4, 2), StageShape(8, 4, 4, 2)))
TENSORS = (Need.LOGITS, Need.EMBEDDING, Need.STAGES, Need.PREACT, Need.DISTILLED)


@dataclass(frozen=True)
class Finding:
    """What one check found; `words` say what is wrong and how to mend it, or nothing where it passed."""

    check: str
    passed: bool
    words: str = ""


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
        given = self.method.loss(*self.given(), self.module)
        return given.loss + given.auxiliary if isinstance(given, LossAndAuxiliary) else given

    def distilled(self) -> Tensor:
        """The loss of one batch without the auxiliary loss."""
        given = self.method.loss(*self.given(), self.module)
        return given.loss if isinstance(given, LossAndAuxiliary) else given

    def given(self) -> tuple[Outputs, Outputs, Batch]:
        """Outputs and a batch that hold everything and note what is read."""
        batch = Batch(
            inputs=torch.zeros(self.batch, 3, 8, 8, dtype=torch.uint8),
            targets=torch.arange(self.batch) % CLASSES,
            index=torch.arange(self.batch) + CLASSES * 2,
            clock=Clock(0, 2, 3, 10),
            generator=generator(self.seed, "conformance"),
            on_read=self._recorder("batch"),
        )
        student = Outputs(self.student, owner="student", on_read=self._recorder("student"))
        teacher = Outputs(self.teacher, owner="teacher", on_read=self._recorder("teacher"))
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
        return {**made(shapes), **{other: Outputs(made(shapes), owner=f"{owner}'s {other.name}") for other in PASSES}}

    return Case(method, module.train(), seen(student, "student"), seen(teacher, "teacher"), {})


def check(method: Method | type[Method]) -> tuple[Finding, ...]:
    """Every check on a method (a class is taken with its declared hyper-parameters); what each found.

    Methods that read the network itself have no made-up outputs: for them only the checks that fit are run.
    Raises InputError for a class whose hyper-parameters have no defaults.
    """
    made = method if isinstance(method, Method) else _declared(method)
    checks = CHECKS if Need.NETWORK not in made.card.needs.student else {k: v for k, v in CHECKS.items() if k in NEEDS_NO_OUTPUTS}
    return tuple(_finding(name, act, made) for name, act in checks.items())


def _declared(cls: type[Method]) -> Method:
    try:
        return cls()
    except ValidationError as error:
        raise InputError(*problems_of(error, cls.card.name, cls.model_fields)) from None


def _finding(name: str, act: Callable[[Method], None], method: Method) -> Finding:
    try:
        with guard.watched(f"method {method.card.name!r}"):
            act(method)
    except guard.Interference as error:
        ended = isinstance(error.__cause__, SystemExit)
        return Finding(name, not ended, str(error) if ended else "")  # a setting that was changed, a check of its own tells
    except Fault as fault:
        return Finding(name, False, str(fault))
    except KdzooError as error:
        return Finding(name, False, str(error))
    except Exception as error:  # a method's own bug is what the check is looking for
        return Finding(name, False, f"it raised {type(error).__name__}: {error}")
    return Finding(name, True)


def is_a_finite_scalar(method: Method) -> None:
    loss = case(method).loss()
    if not isinstance(loss, Tensor) or loss.shape != ():
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise Fault(f"expected a scalar tensor, got {shape}: reduce over the batch, for example with .mean()")
    if loss.dtype not in (torch.float32, torch.float64):
        raise Fault(f"expected float32 or float64, got {loss.dtype}: compute in float32, for example with .float()")
    if not torch.isfinite(loss):
        raise Fault(f"the loss of plain random outputs is {loss.item()}")


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
            raise Fault(f"it reads {names} of the {owner}, which its needs= do not declare: add it there")


def gradient_reaches_the_student(method: Method) -> None:
    made = case(method)
    _backward(made)
    declared = [need for need in TENSORS if need in method.card.needs.student]
    reached = [need for need in declared if any(t.grad is not None and bool(t.grad.any()) for t in _tensors(made.student[need]))]
    if declared and not reached:
        raise Fault("no gradient reaches what the student gave: is something detached, or is the student's output not used?")


def gradient_reaches_every_built_parameter(method: Method) -> None:
    made = case(method)
    _backward(made)
    idle = [name for name, p in made.module.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise Fault(f"no gradient reaches the built parameters {', '.join(idle)}: use them in loss(), or do not build them")


def no_gradient_reaches_the_teacher(method: Method) -> None:
    made = case(method)
    _backward(made)
    for need in TENSORS:
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
        raise Fault(f"it changes {' and '.join(changed)} in place: the other runs of the cohort read that too; work on a copy")


def leaves_global_settings_alone(method: Method) -> None:
    before = guard.settings()
    made = case(method)
    loss = made.loss()
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    method.ramp(Clock(0, 2, 3, 10))
    if changed := guard.put_back(before):
        raise Fault(f"it changes {' and '.join(changed)} for everybody in the process: leave that alone")


def is_reproducible(method: Method) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = case(method).loss()
        torch.manual_seed(1)
        second = case(method).loss()
    if not torch.equal(first, second):
        raise Fault("the same batch gives another loss the second time: draw random numbers with generator=batch.generator")


def survives_large_logits(method: Method) -> None:
    if Need.LOGITS not in method.card.needs.student:
        return
    for scale in (1e2, 1e4):
        made = case(method, scale=scale)
        loss = _backward(made)
        gradients = [t.grad for t in _tensors(made.student[Need.LOGITS]) if t.grad is not None]
        if not torch.isfinite(loss) or not all(bool(torch.isfinite(g).all()) for g in gradients):
            raise Fault(
                f"logits of {scale:g} give NaN or infinity: take log_softmax instead of the log of a softmax, logsumexp instead of a sum"
            )


def computes_wide_under_half_precision(method: Method) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        loss = case(method, dtype=dtype).loss()
        if loss.dtype not in (torch.float32, torch.float64):
            raise Fault(f"outputs in {dtype} give a loss in {loss.dtype}: widen first, for example student.logits.float()")
        if not torch.isfinite(loss):
            raise Fault(f"outputs in {dtype} give the loss {loss.item()}")


def computes_wide_under_autocast(method: Method) -> None:
    made = case(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = made.loss()
    if loss.dtype not in (torch.float32, torch.float64):
        raise Fault(f"under autocast the loss is {loss.dtype}: widen what matrix products give, for example (a @ b).float()")
    if not torch.isfinite(loss):
        raise Fault(f"under autocast the loss is {loss.item()}")


def has_a_finite_gradient_everywhere(method: Method) -> None:
    """At match, for a batch of one image repeated, and for maps and vectors that are all zero, as a dead ReLU gives them."""
    for words, change in DEGENERATE.items():
        made = case(method, student=TEACHER, teacher=TEACHER)
        for need in TENSORS:
            changed = [
                change(s, t).detach().requires_grad_()
                for s, t in zip(_tensors(made.student[need]), _tensors(made.teacher[need]), strict=True)
            ]
            made.student[need] = changed if isinstance(made.student[need], list) else changed[0]
        loss = _backward(made)
        gradients = [t.grad for need in TENSORS for t in _tensors(made.student[need]) if t.grad is not None]
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
    if not method.card.zero_at_match:
        return
    made = case(method, student=TEACHER, teacher=TEACHER)
    for need in TENSORS:
        made.student[need] = copy.deepcopy(made.teacher[need])
    loss = made.distilled()
    if abs(loss.item()) > 1e-6:
        raise Fault(f"declared zero where student and teacher agree, but it is {loss.item():g} there: drop zero_at_match=True, or see why")


def gradient_is_right(method: Method) -> None:
    made = _for_differences(method)
    declared = [need for need in TENSORS if need in method.card.needs.student]
    tensors = [t for need in declared for t in _tensors(made.student[need])]
    if not tensors:
        return

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
        raise Fault(f"its gradient differs from the numerical one: {str(error).partition(chr(10))[0]}") from error


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
        raise Fault("its module saved and loaded gives another loss: keep everything that matters in parameters or buffers")


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
        clock=Clock(0, 1, 0, 1),
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
        raise Fault("the loss carries no gradient: is the student detached?")
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def _tensors(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, list) else [value]


CHECKS: Mapping[str, Callable[[Method], None]] = {
    "is a finite scalar": is_a_finite_scalar,
    "reads only what it declares": reads_only_what_it_declares,
    "gradient reaches the student": gradient_reaches_the_student,
    "gradient reaches every built parameter": gradient_reaches_every_built_parameter,
    "no gradient reaches the teacher": no_gradient_reaches_the_teacher,
    "leaves the outputs alone": leaves_the_outputs_alone,
    "leaves global settings alone": leaves_global_settings_alone,
    "is reproducible": is_reproducible,
    "survives large logits": survives_large_logits,
    "computes wide under half precision": computes_wide_under_half_precision,
    "computes wide under autocast": computes_wide_under_autocast,
    "has a finite gradient everywhere": has_a_finite_gradient_everywhere,
    "takes batches of any size": takes_batches_of_any_size,
    "takes equal and different shapes": takes_equal_and_different_shapes,
    "is zero at match": is_zero_at_match,
    "gradient is right": gradient_is_right,
    "state round trip changes nothing": state_round_trip_changes_nothing,
    "refuses hyper-parameters out of bounds": refuses_hyperparameters_out_of_bounds,
    "is continuous in alpha": is_continuous_in_alpha,
    "trains a tiny pair": trains_a_tiny_pair,
}
NEEDS_NO_OUTPUTS = ("refuses hyper-parameters out of bounds", "trains a tiny pair")
