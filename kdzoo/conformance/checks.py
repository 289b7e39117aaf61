"""Every check in its order, and what each finds of a method: for the tests over the registry, and for `kdzoo check`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from kdzoo.conformance.case import STUDENT, TEACHER, Fault, case, shapes_for
from kdzoo.conformance.conduct import (
    builds_its_layers,
    is_reproducible,
    leaves_global_settings_alone,
    leaves_the_outputs_alone,
    reads_only_what_it_declares,
    refuses_hyperparameters_out_of_bounds,
    state_round_trip_changes_nothing,
    values_outside,
)
from kdzoo.conformance.gradients import (
    gradient_is_right,
    gradient_reaches_every_built_parameter,
    gradient_reaches_the_student,
    no_gradient_reaches_the_teacher,
)
from kdzoo.conformance.numbers import (
    has_a_finite_gradient_everywhere,
    is_a_finite_scalar,
    is_a_mean_over_samples,
    is_continuous_in_alpha,
    is_zero_at_match,
    returns_float32_from_half_precision,
    returns_float32_under_autocast,
    survives_large_logits,
    takes_batches_of_any_size,
    takes_equal_and_different_shapes,
)
from kdzoo.conformance.training_step import trains_a_tiny_pair
from kdzoo.contract import guard
from kdzoo.contract.advice import Networks
from kdzoo.contract.diagnosis import diagnose, short_path
from kdzoo.contract.method import Method, instance_of
from kdzoo.contract.needs import OWN_WIDTH, PER_SAMPLE, Need


class Verdict(StrEnum):
    """The outcome of a check. skipped: not run, since it would only repeat the fault of a check before it."""

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
    cause = next((heading for heading in one.after if before[heading].verdict in (Verdict.failed, Verdict.skipped)), None)
    if cause is not None:
        return Finding(one.heading, Verdict.skipped, before[cause].words if before[cause].verdict is Verdict.skipped else cause)
    if reason := one.unless(method):
        return Finding(one.heading, Verdict.not_applicable, reason)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fault = _fault(one, method)
    user_warnings = dict.fromkeys(
        (f"{short_path(w.filename)}:{w.lineno}", str(w.message)) for w in caught if _is_the_users(w.filename, method)
    )
    return Finding(one.heading, Verdict.failed if fault else Verdict.ok, fault, tuple(user_warnings))


def _is_the_users(file: str, method: Method) -> bool:
    """Whether a warning comes from a line of the method's own file, which its author can change."""
    return method.card.outside and file == method.card.definition[0]


def _fault(one: Check, method: Method) -> str:
    """The complaint of a check, with the line of the method's own code if there is one; empty where it passes."""
    try:
        with guard.watch(f"method {method.card.name!r}"):
            one.run(method)
    except guard.Interference as error:  # a setting that was changed has a check of its own
        return str(error) if isinstance(error.__cause__, SystemExit) else ""
    except Fault as fault:
        return str(fault)
    except Exception as error:  # a method's own bug is what the check is looking for
        needs = method.card.needs
        networks = Networks(shapes_for(method, STUDENT), shapes_for(method, TEACHER), (needs.student | needs.teacher).outputs)
        return diagnose(error, method.card.definition[0], networks)
    return ""


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
    return any(True for field in type(method).model_fields.values() for bound in field.metadata for _ in values_outside(bound))


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
        _unless("it reads nothing of the student", lambda m: bool(m.card.needs.student.outputs & PER_SAMPLE)),
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
        _unless("it reads nothing of the teacher", lambda method: bool(method.card.needs.teacher.outputs & PER_SAMPLE)),
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
        "a mean over samples",
        is_a_mean_over_samples,
        (RUNS, SIZES),
        _unless("per_sample=True is not declared", lambda method: method.card.per_sample),
    ),
    Check(
        "gradcheck: analytic against numerical gradient",
        gradient_is_right,
        (RUNS, GRADIENT, IN_PLACE, DETERMINISTIC, SIZES),
        _unless("it reads no tensor of the student", lambda method: bool(method.card.needs.student.outputs & PER_SAMPLE)),
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
