"""From a specification and what two networks' outputs measure to an objective; what cannot serve them is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from kdzoo.contract import guard
from kdzoo.contract.advice import Networks
from kdzoo.contract.card import Card, why_not_features
from kdzoo.contract.diagnosis import diagnose
from kdzoo.contract.faults import MethodFault, fault_of_module
from kdzoo.contract.heads import Head, fault_of_heads, heads_for, heads_of, shapes_of_column
from kdzoo.contract.method import Method, stage_indices
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Pass
from kdzoo.contract.objective import Objective, Term, called, part_name
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.seeds import global_stream, library_stream
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task


def terms_of(spec: ObjectiveSpec) -> tuple[Term, ...]:
    """The methods of a specification; raises InputError where one is unknown or not the version that was asked for."""
    terms = tuple(Term(REGISTRY.create(t.method, t.hyperparameters), t.coefficient) for t in spec.terms)
    stale = [
        f"methods: {plan.method!r} was planned in version {plan.version}, but {term.method.card.origin} defines "
        f"version {term.method.card.version}"
        for plan, term in zip(spec.terms, terms, strict=True)
        if plan.version != term.method.card.version
    ]
    if stale:
        raise InputError(*stale)
    return terms


def build_objective(
    spec: ObjectiveSpec,
    student: Shapes,
    teacher: Shapes | None,
    stages: Sequence[tuple[int, int]],
    facts: DataFacts,
    *,
    label_smoothing: float,
    seed: int,
    terms: Sequence[Term] | None = None,
    task: Task = CLASSIFICATION,
    teacher_columns: Sequence[str] | None = None,
) -> Objective:
    """The objective of a run with freshly made modules, each drawn from its method's own random stream.

    terms: the methods of `spec`, where they are made already. task: the task of the data; teacher_columns: which of its
    several columns the teacher scores, None for all. Raises InputError with every method that cannot serve these two networks or
    these data.
    """
    terms = terms_of(spec) if terms is None else terms
    problems: list[str] = []
    modules: dict[str, nn.Module] = {}
    heads = heads_of(task, teacher_columns)
    for term in terms:
        needs = term.method.card.needs
        if fault := fault_of_maps(term.method.card, student):
            problems.append(f"{term.name}: {fault}")
            continue
        if {Need.STAGES, Need.PREACT} & set(needs.student.outputs & needs.teacher.outputs) and not stages:
            problems.append(f"{term.name}: the two networks have no stages to pair ({_names(student)} under {_names(teacher)})")
            continue
        for role, shapes, need in (("student", student, needs.student.outputs), ("teacher", teacher, needs.teacher.outputs)):
            problems.extend(f"{term.name}: {missing}" for missing in (_missing(role, shapes, need) if shapes else ()))
        if task.of_features and (fault := why_not_features(term.method.card)):
            problems.append(f"{term.name}: {fault}; the task is {task.name}, whose networks give embeddings and learn nothing of labels")
            continue
        reads = "reads the labels of every sample" if needs.targets else "pairs each sample with another of its label"
        if fault := fault_of_heads(term.method.card, heads):
            problems.append(f"{term.name}: {fault}; the data's task is {task.name}")
            continue
        reads_classes = Pass.PARTNER in needs.student or (needs.targets and not term.method.card.outside)
        if reads_classes and not (task.of_classes or heads):
            problems.append(f"{term.name}: {reads}, which has to be a class: the data's task is {task.name}")
            continue
        if (needs.targets or Pass.PARTNER in needs.student) and facts.lacks_labels:
            problems.append(f"{term.name}: {reads}, but some samples have none (label_fraction < 1, or transfer_data)")
            continue
        try:
            ours, theirs = stage_indices(term.method, stages)
            student_shapes = student.pick(ours)
            teacher_shapes = teacher.pick(theirs) if teacher else student_shapes
            for head in heads_for(term.method.card, heads):
                name = part_name(term.name, head)
                with global_stream(seed, "build", name), library_stream(seed, "build", name):
                    modules[name] = _build(term.method, *_of_head(head, student_shapes, teacher_shapes, facts, own=teacher is None))
        except InputError as error:
            problems.extend(f"{term.name}: {problem}" for problem in error.problems)
        except (guard.Interference, MethodFault) as error:
            problems.append(str(error))
        except Exception as error:
            if not term.method.card.outside:
                raise
            networks = Networks(student_shapes, teacher_shapes, (needs.student | needs.teacher).outputs)
            words = diagnose(error, term.method.card.definition[0], networks)
            problems.append(f"{called(term.method)} at {term.method.card.origin}: its build() fails: {words}")
    if problems:
        raise InputError(*problems)
    preact = teacher is not None and teacher.preact
    return Objective(
        spec.task,
        terms,
        modules,
        stages=stages,
        label_smoothing=label_smoothing,
        seed=seed,
        preact=preact,
        task=task,
        teacher_columns=teacher_columns,
    )


def _of_head(head: Head | None, student: Shapes, teacher: Shapes, facts: DataFacts, *, own: bool) -> tuple[Shapes, Shapes, DataFacts]:
    """What a method's `build` is given, for one head that of its column alone. own: whether the teacher's shapes are the student's."""
    if head is None:
        return student, teacher, facts
    of_teacher = head.student if own else head.teacher
    return shapes_of_column(student, head.student), shapes_of_column(teacher, of_teacher), head.facts(facts)


def _build(method: Method, student: Shapes, teacher: Shapes, facts: DataFacts) -> nn.Module:
    if not method.card.outside:
        return method.build(student, teacher, facts)
    module = guard.build(called(method), method.build, student, teacher, facts)
    if fault := fault_of_module(module):
        raise MethodFault(f"{called(method)} at {method.card.origin}: {fault}")
    return module


def fault_of_maps(card: Card, student: Shapes) -> str:
    """Why a method cannot learn with networks such as the student, of images or of texts; empty where it can."""
    if not student.sequences:
        return "reads the hidden states of texts, but these are networks of images" if card.of_texts_alone else ""
    if card.reads_maps and card.maps == "grids":
        own = '; declare maps="any" if it can read states (D, 1, L) over tokens' if card.outside else ""
        return f"reads maps over the height and width of images, but these are networks of texts{own}"
    if card.family == "gradients" or card.pixels:
        return "looks at gradients by the pixels of images, but these are networks of texts"
    return ""


def _missing(role: str, shapes: Shapes, need: Need) -> Iterator[str]:
    """What a network cannot give of what is read of it."""
    if Need.EMBEDDING in need and not shapes.embedding:
        yield f"reads the {role}'s embedding, but that network's classifier cannot be found"
    if Need.CLASSIFIER in need and shapes.classifier is None:
        yield f"reads the {role}'s classifier, but that network has no single layer that maps its embedding to its logits"
    if Need.PREACT in need and not shapes.preact:
        yield f"reads the {role}'s pre-activation maps, which only kdzoo's own networks and timm's ResNets and RegNets provide"
    if Need.DISTILLED in need and not shapes.distilled:
        yield f"reads the {role}'s distillation token, which only timm's distilled models have (deit_tiny_distilled_patch16_224, ...)"


def _names(shapes: Shapes | None) -> str:
    return ", ".join(map(str, shapes.stages)) if shapes and shapes.stages else "none"
