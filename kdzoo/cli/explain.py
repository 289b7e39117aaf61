"""`kdzoo explain`: a method's formula with the numbers of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.declare import argument, option
from kdzoo.cli.loading import load_plugin_files, reads_declarations
from kdzoo.cli.methods import method_row
from kdzoo.cli.options import JsonOnly, Plugins
from kdzoo.cli.output import print_json, print_text
from kdzoo.cli.stages import stages
from kdzoo.errors import InputError
from kdzoo.runs.options import PAIR
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.yaml_files import assignments

if TYPE_CHECKING:
    from kdzoo.runs.spec import ObjectiveSpec
    from kdzoo.suite.plan.recipe_files import PairValues, RecipeFile


USUAL_EPOCHS = 240
"""of the CIFAR recipe that a pretrain stage's epochs are shown for"""


SETTING = "The setting"


class Pairing(StrEnum):
    """How the stages of two networks are paired."""

    deep = "deep"
    left = "left"


@reads_declarations
def explain(
    method: Annotated[
        str,
        argument(
            "A method; a sum, such as at+hinton; or exact weights, such as 0.1*ce+0.9*hinton.", metavar="METHOD", names_of=complete.methods
        ),
    ],
    alpha: Annotated[
        float | None,
        option(
            text="Weight of the teacher: L = (1 - alpha) CE + alpha scale D.",
            default="the published weights",
            panel=SETTING,
            metavar="ALPHA",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        option(text="Temperature of every method that has one.", default="each method's own", panel=SETTING, metavar="T"),
    ] = None,
    weight: Annotated[float, option(text="A factor on the method's weight.", default="1", panel=SETTING, metavar="W")] = 1.0,
    set_: Annotated[
        list[str] | None,
        option(
            "--set",
            metavar="FIELD=VALUE",
            text="A hyper-parameter; METHOD.FIELD=VALUE in a sum (repeatable).",
            default="the declared values",
            panel=SETTING,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        option(
            text="With --student: list which stages of the two are paired.",
            default="none",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.networks,
        ),
    ] = None,
    student: Annotated[
        str | None,
        option(
            text="With --teacher: list which stages of the two are paired.",
            default="none",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.networks,
        ),
    ] = None,
    image: Annotated[str, option(text="Size of the images.", default="3x32x32", panel=PAIR, metavar="CxHxW")] = "3x32x32",
    pairing: Annotated[
        Pairing | None,
        option(
            text="deep: match stages by nearest size, starting at the last; left: match by position, starting at the first.",
            default="the recipe's, else deep",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.of(*Pairing),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            text="Pair stages as this recipe does, and use its values for this pair of networks.",
            default="none",
            panel=SETTING,
            metavar="NAME",
            names_of=complete.recipes,
        ),
    ] = None,
    results: Annotated[
        Path, option(text="The folder of benches whose measured doses are shown.", default="results", panel=SETTING, metavar="FOLDER")
    ] = Path("results"),
    plugin: Plugins = None,
    as_json: JsonOnly = False,
) -> int:
    """Print a method's formula with the numbers of a run, what it reads, its paper, and what alpha would do.

    With two networks it also lists which of their stages are paired and which are left over. Where a bench has measured the
    method's gradient, the dose of its weight is shown, and the weight that has a dose of 1.

    \b
    Examples:
      kdzoo explain hinton --alpha 0.9 --temperature 2
      kdzoo explain at --teacher resnet56 --student resnet20 --image 3x32x32
      kdzoo explain reviewkd --recipe crd240 --teacher resnet56 --student resnet20
    """
    from kdzoo.contract.card import Setting
    from kdzoo.contract.explain import explain as explained
    from kdzoo.suite.plan.objectives import objective as resolve_objective
    from kdzoo.suite.plan.requests import parse_request

    load_plugin_files(plugin)
    if bool(teacher) != bool(student):
        raise InputError(f"{'student' if teacher else 'teacher'}: missing; a teacher and a student go together")
    request, protocol = parse_request(method), recipe_file(recipe) if recipe else None
    hyperparameters = _hyperparameters(request.terms, temperature, assignments(set_ or ()))
    pairing_rule = (protocol.pairing if protocol else "deep") if pairing is None else pairing.value
    pair = _pair_name(teacher, student) if teacher and student else None
    objective = resolve_objective(
        request,
        Setting(weight=weight, alpha=alpha),
        hyperparameters,
        pairing_rule,
        epochs=int(protocol.recipe.get("epochs", USUAL_EPOCHS)) if protocol else USUAL_EPOCHS,
        published=protocol.published_for(pair) if protocol and pair else {},
    )
    if as_json:
        print_json(_explained_row(objective))
        return 0
    print_text(explained(objective))
    for line in [*_signed(objective), *_measured(objective, results)]:
        print_text(line)
    if recipe and protocol:
        print_text("\n".join(_values_of(Path(recipe).stem, protocol, request.terms, pair)))
    if teacher and student:
        print_text(stages(objective, teacher, student, image, pairing_rule))
    return 0


def _explained_row(objective: ObjectiveSpec) -> dict[str, Any]:
    """What explain prints, as plain values."""
    from kdzoo.contract.explain import formula
    from kdzoo.contract.methods import REGISTRY

    cards = [{**method_row(cls), "scale": cls.card.scale} for cls in (REGISTRY.get(term.method) for term in objective.all_terms)]
    return {"formula": formula(objective), "objective": objective.model_dump(mode="json"), "methods": cards}


def _signed(objective: ObjectiveSpec) -> list[str]:
    """Which of the methods their authors have signed, a line each."""
    from kdzoo.suite.plan.signatures import signature_line

    lines = {term.method: signature_line(term.method, term.version) for term in objective.all_terms}
    return [line for line in lines.values() if line is not None]


def _measured(objective: ObjectiveSpec, results: Path) -> list[str]:
    """What the benches below a folder have measured of the terms of an objective, one line per measurement."""
    from kdzoo.runs.canonical import canonical
    from kdzoo.suite.plan.doses import NAME, of_method, read_doses, weight_for

    lines = []
    for file in sorted(results.glob(f"*/{NAME}")):
        measurements = read_doses(file.parent).values()
        for term in objective.terms:
            for one in of_method(measurements, term.method):
                dose = one.dose(term.coefficient, objective.task)
                if canonical(one.hyperparameters) == canonical(term.hyperparameters) and dose is not None:
                    behind = "" if one.label == one.method else f" ({one.label})"
                    where = f"{file.parent}{behind}: {one.pair} on {one.data}, {one.recipe} ({one.epochs} epochs)"
                    weight = f"weight {term.coefficient:g} is a dose of {dose:.2g}, and dose 1 a weight of {weight_for(1, one.ratio):g}"
                    lines.append(f"  measured   {where}: {weight}")
    return lines


def _pair_name(teacher: str, student: str) -> str:
    """What a pair is called by its networks' names, whatever their weights are."""
    from kdzoo.models.request import parse_network

    return "/".join(parse_network(text).name for text in (teacher, student))


def _values_of(recipe: str, protocol: RecipeFile, terms: Iterable[str], pair: str | None) -> list[str]:
    """What a recipe has of each term for a pair, or for every pair that it knows, instead of the declared values; one line per term."""
    lines = []
    for term in terms:
        published = protocol.published.get(term)
        of_pairs = {name: values for name, values in published.pairs.items() if pair in (None, name)} if published else {}
        if published is None or not of_pairs:
            lines.append(f"  {recipe} has no values of its own for {term}{f' on {pair}' if pair else ''}")
            continue
        text = ", ".join(f"{name} ({_in_words(values)})" for name, values in of_pairs.items())
        lines.append(f"  {recipe} has values of its own for {term} on {text}, from {published.source}")
    return lines


def _in_words(values: PairValues) -> str:
    """`factor 600, resolution 4`."""
    factor = [] if values.term is None else [f"factor {values.term:g}"]
    return ", ".join([*factor, *(f"{name} {value}" for name, value in values.hyperparameters.items())])


def _hyperparameters(terms: Sequence[str], temperature: float | None, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The hyper-parameters by method; raises InputError for a field of a sum that does not say whose it is."""
    from kdzoo.contract.methods import REGISTRY

    values: dict[str, dict[str, Any]] = {term: {} for term in terms}
    if temperature is not None:
        for term in terms:
            if "temperature" in REGISTRY.get(term).model_fields:
                values[term]["temperature"] = temperature
    for key, value in settings.items():
        owner, _, field = key.rpartition(".")
        owner = owner or (terms[0] if len(terms) == 1 else "")
        if owner not in values:
            raise InputError(f"--set {key}: expected METHOD.FIELD of {', '.join(terms) or 'a method that has any'}")
        values[owner][field] = value
    return values
