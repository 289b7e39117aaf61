"""A method's formula with the numbers of a run, in a few lines of text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kdzoo.contract.card import Card, Setting, StagesRead
from kdzoo.contract.method import stage_indices, stages_read
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, NetworkNeeds
from kdzoo.contract.shapes import Shapes, StageShape
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.text import number_of

STAGES: Mapping[StagesRead, str] = {
    "paired": "both networks' stages, paired one to one",
    "last": "each network's own last map",
    "own": "each network's own stages, not paired",
}


def explain(objective: ObjectiveSpec) -> str:
    """What a resolved objective minimises, what each of its methods reads, where it comes from, and what alpha would do."""
    lines = [f"L = {formula(objective)}", "    CE: cross-entropy of the student with the labels, mean over the batch"]
    if (first := objective.first) is not None:
        alone = loss_text(first.term.method, first.term.hyperparameters)
        lines.insert(
            0, f"first, for {number_of(first.epochs, 'epoch')}, as a run of its own: L = {first.term.coefficient:g} * {alone}; then"
        )
    for term in objective.all_terms:
        lines += ["", *about(term.method, term.hyperparameters)]
    return "\n".join(lines)


def formula(objective: ObjectiveSpec) -> str:
    """`0.1 * CE + 0.9 * 4^2 * KL(softmax(t / 4) || softmax(s / 4))`."""
    parts = [f"{objective.task:g} * CE"] if objective.task else []
    for term in objective.terms:
        own = loss_text(term.method, term.hyperparameters)
        parts.append(f"{term.coefficient:g} * " + (f"[{own}]" if ", " in own or " + " in own else own))
    return " + ".join(parts)


def loss_text(method: str, hyperparameters: Mapping[str, Any]) -> str:
    """A method's own loss with its hyper-parameters put in."""
    text = REGISTRY.get(method).card.formula or f"{method}(student, teacher)"
    return re.sub(r"\{(\w+)\}", lambda field: _short(hyperparameters.get(field.group(1), field.group(0))), text)


def about(method: str, hyperparameters: Mapping[str, Any]) -> list[str]:
    """Where a method comes from, what it reads, its hyper-parameters, and what alpha means for it."""
    cls = REGISTRY.get(method)
    card = cls.card
    lines = [f"{method}: {card.summary}"]
    if card.source:
        equation = f", equation {card.source.equation}" if card.source.equation[:1].isdigit() else f", {card.source.equation}"
        lines.append(f"  paper      {card.source.title} ({card.source.year}){equation if card.source.equation else ''}, {card.source.url}")
    else:
        lines.append(f"  defined at {card.origin}")
    before = " (stages before their last activation, where it gives them so)" if card.needs.preact_if_given else ""
    lines.append(f"  reads      student: {in_words(card.needs.student)}; teacher: {in_words(card.needs.teacher)}{before}")
    if (card.needs.student | card.needs.teacher).outputs & (Need.STAGES | Need.PREACT):
        lines.append(f"  stages     {STAGES[stages_read(REGISTRY.create(method, hyperparameters))]}")
    for name, field in cls.model_fields.items():
        lines.append(
            f"  {name} = {_short(hyperparameters.get(name, field.default))}" + (f": {field.description}" if field.description else "")
        )
    published = f"{card.published.task:g} * CE + {card.published.term:g} * {method}"
    lines.append(f"  published  {published}" + (f" ({card.source.weights})" if card.source and card.source.weights else ""))
    lines.append(f"  tune       tries, in this order: {settings_in_words(card)}")
    if card.no_dose:
        lines.append(f"  dose       none: {card.no_dose}")
    else:
        lines.append(f"  dose       with dose d the sum is CE + w * {method}, w chosen so that its gradient is d times that of CE")
    meaning = f"with alpha a: L = (1 - a) * CE + a * {card.scale:g} * {method}; alpha weighs the teacher"
    lines.append(f"  scale      {card.scale:g}: {meaning}")
    return lines


def settings_in_words(card: Card) -> str:
    """What a bench with tune tries of a method, in its order: `the published weight; dose 0.1; dose 0.3`."""

    def words(setting: Setting) -> str:
        parts = [f"{key} = {_short(value)}" for key, value in setting.hyperparameters.items()]
        parts += [] if setting.alpha is None else [f"alpha = {setting.alpha:g}"]
        parts += [] if setting.dose is None else [f"dose {setting.dose:g}"]
        parts += [] if setting.weight == 1 else [f"weight x {setting.weight:g}"]
        return ", ".join(parts) or "the published weight"

    return "; ".join(map(words, card.search))


def in_words(needs: Need | NetworkNeeds) -> str:
    """`logits, stages`, as a person reads it."""
    return ", ".join(NetworkNeeds.of(needs).words) or "nothing"


def stage_pairs(student: Shapes, teacher: Shapes, pairs: Sequence[tuple[int, int]]) -> str:
    """Which stages of two networks meet, shallow to deep, and which are left over."""
    lines = [f"  student {student.stages[s]} (stage {s}) is paired with teacher {teacher.stages[t]} (stage {t})" for s, t in pairs]
    left_s = [f"student {shape} (stage {i})" for i, shape in enumerate(student.stages) if i not in {s for s, _ in pairs}]
    left_t = [f"teacher {shape} (stage {i})" for i, shape in enumerate(teacher.stages) if i not in {t for _, t in pairs}]
    leftovers = [*left_s, *left_t]
    return "\n".join(["stages", *(lines or ["  none meet"]), f"  left over: {', '.join(leftovers) if leftovers else 'none'}"])


def maps_read(objective: ObjectiveSpec, student: Shapes, teacher: Shapes, pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Which maps of two networks each term that does not read their pairs is handed, one line per term."""
    maps = Need.STAGES | Need.PREACT
    lines = []
    for term in objective.all_terms:
        method = REGISTRY.create(term.method, term.hyperparameters)
        if stages_read(method) == "paired":
            continue
        ours, theirs = stage_indices(method, pairs)
        needs = method.card.needs
        reads = [_names("student", student.pick(ours).stages)] if needs.student.outputs & maps else []
        reads += [_names("teacher", teacher.pick(theirs).stages)] if needs.teacher.outputs & maps else []
        lines.append(f"  {term.method} reads {' and '.join(reads)}")
    return lines


def _names(role: str, stages: Sequence[StageShape]) -> str:
    return f"{role} {', '.join(map(str, stages)) or 'none'}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
