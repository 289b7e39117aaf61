"""What there is: `kdzoo methods`, `networks`, `pairs`, `recipes`, `data`; what a method means: `explain`; `check` for your own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from kdzoo.cli.bench import DataRoot, Plugins
from kdzoo.cli.output import Format, console, say, show
from kdzoo.errors import InputError, unknown
from kdzoo.suite.config import assignments, recipe_file
from kdzoo.suite.config import recipes as recipe_names

if TYPE_CHECKING:
    from kdzoo.conformance import Finding
    from kdzoo.signals import Shapes
    from kdzoo.spec import ObjectiveSpec
    from kdzoo.suite.config import PairValues, RecipeFile

LITERATURES_EPOCHS = 240
"""of the CIFAR recipe that a first stage's epochs are shown for"""


NAMED = 8
"""skipped checks that are listed by their headings; of more only the number"""


class Pairing(StrEnum):
    """How the stages of two networks meet."""

    deep = "deep"
    left = "left"


Kind = Annotated[Format, typer.Option("--format", help="How the list is printed.")]


def methods(
    family: Annotated[str | None, typer.Option(metavar="NAME,...", help="Only these families: logits, features, relations, ...")] = None,
    needs: Annotated[
        str | None, typer.Option(metavar="NEED,...", help="Only methods that read all of these: stages, second_view, targets, ...")
    ] = None,
    plugin: Plugins = None,
    how: Kind = Format.table,
) -> int:
    """List the methods: what each reads of the two networks, its hyper-parameters and weights, and its paper.

    The student alone is called `none`. Sums are written at+hinton.

    \b
    Examples:
      kdzoo methods
      kdzoo methods --family features,relations
      kdzoo methods --needs stages,second_view
      kdzoo methods --plugin my_loss.py --format md
    """
    from kdzoo.method import FAMILIES, REGISTRY
    from kdzoo.signals import Need

    _load(plugin)
    by_word = {str(need.name).lower(): need for need in Need if need.value}
    families, words = _asked("family", family, FAMILIES), _asked("needs", needs, by_word)
    found = [REGISTRY.get(name) for name in REGISTRY.names()]
    if families:
        found = [cls for cls in found if cls.card.family in families]
    for word in words:
        found = [cls for cls in found if by_word[word] in cls.card.needs.student | cls.card.needs.teacher]
    rows = [_method_row(cls) for cls in found]
    show(rows, how, columns=("method", "family", "reads", "hyper-parameters", "as published", "paper"))
    for name, reason in REGISTRY.broken.items():
        say(f"the installed plugin {name} could not be loaded: {reason}")
    return 0


def _load(plugin: Sequence[str] | None) -> None:
    """Run the user's files, so that what they register is listed; without any, nothing is imported for it."""
    if plugin:
        from kdzoo.method import load_plugins

        load_plugins(plugin)


def _asked(option: str, text: str | None, known: Iterable[str]) -> list[str]:
    """The words of a list joined with commas; raises InputError with every one that is not known."""
    names = list(known)
    asked = [word.strip().lower() for word in (text or "").split(",") if word.strip()]
    if wrong := [unknown(f"--{option}", word, names) for word in asked if word not in names]:
        raise InputError(*wrong)
    return asked


def _method_row(cls: Any) -> dict[str, Any]:
    """A method's card in the words of a table; `Any`, since the class brings torch with it."""
    from kdzoo.explain import in_words

    card = cls.card
    fields = cls.model_fields
    return {
        "method": card.name,
        "family": card.family,
        "reads": in_words(card.needs.student | card.needs.teacher),
        "hyper-parameters": ", ".join(f"{name}={'required' if field.is_required() else field.default}" for name, field in fields.items()),
        "as published": f"{card.published.task:g} CE + {card.published.term:g} D",
        "paper": f"{card.source.title}, {card.source.year}, {card.source.url}" if card.source else card.summary,
    }


def networks(
    like: Annotated[str | None, typer.Argument(help="A part of the name, or a pattern such as 'resnet*'; searches timm's too.")] = None,
    plugin: Plugins = None,
    how: Kind = Format.table,
) -> int:
    """List kdzoo's own networks and those of your plugins; with a part of a name, everything in timm that has it.

    \b
    Examples:
      kdzoo networks
      kdzoo networks 'mobilenetv3*'
    """
    from kdzoo.models.names import list_networks, network_names

    _load(plugin)
    found = list_networks() if like is None else [name for name in network_names() if _matches(name, like)]
    if how is Format.table:
        for name in found:
            print(name)
    else:
        show([{"network": name} for name in found], how, columns=("network",))
    return 0


def _matches(name: str, like: str) -> bool:
    from fnmatch import fnmatch

    return fnmatch(name, like) if any(sign in like for sign in "*?[") else like in name


def pairs(plugin: Plugins = None, how: Kind = Format.table) -> int:
    """List the named pairs of teacher and student, with the top-1 that the literature reports for each alone.

    Any two networks make a pair too: --pairs TEACHER/STUDENT.

    \b
    Example:
      kdzoo pairs
    """
    from kdzoo.models.pairs import PAIRS

    _load(plugin)
    rows = [
        {
            "pair": pair.name,
            "teacher": pair.teacher,
            "student": pair.student,
            "data": pair.data,
            "published teacher": pair.published and pair.published[0],
            "published student": pair.published and pair.published[1],
            "source": pair.source,
        }
        for pair in PAIRS.values()
    ]
    show(rows, how)
    return 0


def recipes(plugin: Plugins = None, how: Kind = Format.table) -> int:
    """List the recipes: how networks are trained. A YAML file of your own serves as one too (--recipe my.yaml).

    \b
    Example:
      kdzoo recipes
    """
    _load(plugin)
    rows = []
    for name in recipe_names():
        file = recipe_file(name)
        recipe = file.recipe
        rows.append(
            {
                "recipe": name,
                "epochs": recipe["epochs"],
                "batch": recipe["batch_size"],
                "lr": recipe["lr"],
                "optimizer": recipe.get("optimizer", "sgd"),
                "schedule": recipe.get("schedule", "constant"),
                "refit": file.refit,
                "description": file.description,
                "source": file.source,
            }
        )
    show(rows, how)
    return 0


class _DataGroup(TyperGroup):
    """`kdzoo data NAME` is `kdzoo data show NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        known = not args or args[0].startswith("-") or self.get_command(ctx, args[0]) is not None
        return super().resolve_command(ctx, args if known else ["show", *args])


data = typer.Typer(
    cls=_DataGroup,
    help="The data sets: what there is, what lies here, and how to get the rest.",
    rich_markup_mode="rich",
    no_args_is_help=True,
)


@data.command("list")
def data_list(data_root: DataRoot = None, plugin: Plugins = None, how: Kind = Format.table) -> int:
    """List the data sets and where each lies on this machine.

    \b
    Example:
      kdzoo data list --data-root ~/data
    """
    from kdzoo.data.sources import DATA, where

    _load(plugin)
    root = Path(data_root) if data_root else None
    rows = []
    for name, description in DATA.items():
        place = "anywhere" if name.startswith("folder:") else where(name, root) or f"not here; kdzoo data prepare {name}"
        rows.append({"data": name, "description": description, "where": place})
    show(rows, how)
    return 0


@data.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A data set's name, or folder:PATH.")],
    data_root: DataRoot = None,
    plugin: Plugins = None,
    how: Kind = Format.table,
) -> int:
    """Read a data set, say what was found in it and what was passed over, and list its classes. `show` may be left out.

    \b
    Example:
      kdzoo data show folder:photos
    """
    from kdzoo.data.report import data_lines, data_record
    from kdzoo.data.sources import load
    from kdzoo.data.split import split
    from kdzoo.spec import DataSpec

    _load(plugin)
    images = load(name, root=Path(data_root) if data_root else None, allow_download=False)
    spec = DataSpec(name=images.name, fingerprint=images.fingerprint, classes=len(images.classes), val_fraction=0.1 if images.val else 0.0)
    for line in data_lines(data_record(images, split(images, spec)), whole=True):
        say(line.removeprefix("data: "))
    parts = {"train": images.train, "val": images.val, "test": images.test}
    counts = {part: subset.targets.tolist() for part, subset in parts.items() if subset is not None}
    show([{"class": label, **{part: targets.count(n) for part, targets in counts.items()}} for n, label in enumerate(images.classes)], how)
    return 0


@data.command("prepare")
def data_prepare(name: Annotated[str, typer.Argument(help="mnist, cifar10 or cifar100.")], data_root: DataRoot = None) -> int:
    """Download a data set and check it, through torchvision. Where it lies already, only check it.

    \b
    Example:
      kdzoo data prepare cifar100 --data-root ~/data
    """
    from kdzoo.data.sources import data_root as chosen_root
    from kdzoo.data.sources import load, prepare

    root = Path(data_root) if data_root else None
    try:
        prepare(name, root)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"data: {name} could not be downloaded ({type(error).__name__}: {reason}); copy its files below {chosen_root(root)} by hand"
        ) from error
    images = load(name, root=root)
    line = f"{name}: {len(images.train.targets)} + {len(images.test.targets)} images, {len(images.classes)} classes, in {chosen_root(root)}"
    console().print(line, markup=False, soft_wrap=True)
    return 0


def explain(
    method: Annotated[str, typer.Argument(help="A method, a sum such as at+hinton, or exactly 0.1*ce+0.9*hinton.")],
    alpha: Annotated[float | None, typer.Option(help="L = (1 - alpha) CE + alpha scale D; without it the published weights.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of every method that has one.")] = None,
    weight: Annotated[float, typer.Option(help="A factor on the method's weight.")] = 1.0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A hyper-parameter; METHOD.FIELD=VALUE in a sum (repeatable).")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="With --student: list which stages of the two meet.")] = None,
    student: Annotated[str | None, typer.Option(help="With --teacher: list which stages of the two meet.")] = None,
    image: Annotated[str, typer.Option(metavar="CxHxW", help="The images that the two networks see.")] = "3x32x32",
    pairing: Annotated[
        Pairing | None, typer.Option(help="How stages meet: by reduction from the deep end (unless said), or by position from the left.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="With its pairing and its values for the two networks."),
    ] = None,
    results: Annotated[Path, typer.Option(help="The folder of benches whose measured doses are shown.")] = Path("results"),
    plugin: Plugins = None,
) -> int:
    """Print a method's formula with the numbers of a run, what it reads, its paper, and what alpha would do.

    With two networks it also lists which of their stages meet and which are left over. Where a bench has measured the
    method's gradient, the dose of its weight is shown, and the weight that has a dose of 1.

    \b
    Examples:
      kdzoo explain hinton --alpha 0.9 --temperature 2
      kdzoo explain at --teacher resnet56 --student resnet20 --image 3x32x32
      kdzoo explain reviewkd --recipe crd240 --teacher resnet56 --student resnet20
    """
    from kdzoo.explain import explain as explained
    from kdzoo.method import Setting
    from kdzoo.suite.request import objective, parse_request

    _load(plugin)
    if bool(teacher) != bool(student):
        raise InputError(f"{'student' if teacher else 'teacher'}: missing; a teacher and a student go together")
    request, protocol = parse_request(method), recipe_file(recipe) if recipe else None
    hyperparameters = _hyperparameters(request.terms, temperature, assignments(set_ or ()))
    meet = (protocol.pairing if protocol else "deep") if pairing is None else pairing.value
    pair = _pair_name(teacher, student) if teacher and student else None
    made = objective(
        request,
        Setting(weight=weight, alpha=alpha),
        hyperparameters,
        meet,
        epochs=int(protocol.recipe.get("epochs", LITERATURES_EPOCHS)) if protocol else LITERATURES_EPOCHS,
        published=protocol.published_for(pair) if protocol and pair else {},
    )
    console().print(explained(made), markup=False, soft_wrap=True)
    for line in _measured(made, results):
        console().print(line, markup=False, soft_wrap=True)
    if recipe and protocol:
        console().print("\n".join(_values_of(Path(recipe).stem, protocol, request.terms, pair)), markup=False, soft_wrap=True)
    if teacher and student:
        console().print(_stages(made, teacher, student, image, meet), markup=False, soft_wrap=True)
    return 0


def _measured(made: ObjectiveSpec, results: Path) -> list[str]:
    """What the benches below a folder have measured of the terms of an objective, a line a measurement."""
    from kdzoo.spec import canonical
    from kdzoo.suite.doses import NAME, of_method, read_doses, weight_for

    lines = []
    for file in sorted(results.glob(f"*/{NAME}")):
        found = read_doses(file.parent).values()
        for term in made.terms:
            for one in of_method(found, term.method):
                dose = one.dose(term.coefficient, made.task)
                if canonical(one.hyperparameters) == canonical(term.hyperparameters) and dose is not None:
                    behind = "" if one.label == one.method else f" ({one.label})"
                    where = f"{file.parent}{behind}: {one.pair} on {one.data}, {one.recipe} ({one.epochs} epochs)"
                    weight = f"weight {term.coefficient:g} is a dose of {dose:.2g}, and dose 1 a weight of {weight_for(1, one.ratio):g}"
                    lines.append(f"  measured   {where}: {weight}")
    return lines


def _pair_name(teacher: str, student: str) -> str:
    """What a pair is called by its networks' names, whatever their weights are."""
    from kdzoo.models.weights import parse_network

    return "/".join(parse_network(text).name for text in (teacher, student))


def _values_of(recipe: str, protocol: RecipeFile, terms: Iterable[str], pair: str | None) -> list[str]:
    """What a recipe has of each term for a pair, or for every pair that it knows, instead of the declared values; a line a term."""
    lines = []
    for term in terms:
        given = protocol.published.get(term)
        found = {name: values for name, values in given.pairs.items() if pair in (None, name)} if given else {}
        if given is None or not found:
            lines.append(f"  {recipe} has no values of its own for {term}{f' on {pair}' if pair else ''}")
            continue
        listed = ", ".join(f"{name} ({_in_words(values)})" for name, values in found.items())
        lines.append(f"  {recipe} has values of its own for {term} on {listed}, from {given.source}")
    return lines


def _in_words(values: PairValues) -> str:
    """`factor 600, resolution 4`."""
    factor = [] if values.term is None else [f"factor {values.term:g}"]
    return ", ".join([*factor, *(f"{name} {value}" for name, value in values.hyperparameters.items())])


def _hyperparameters(terms: Sequence[str], temperature: float | None, given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was given, by method; raises InputError for a field of a sum that does not say whose it is."""
    from kdzoo.method import REGISTRY

    found: dict[str, dict[str, Any]] = {term: {} for term in terms}
    if temperature is not None:
        for term in terms:
            if "temperature" in REGISTRY.get(term).model_fields:
                found[term]["temperature"] = temperature
    for key, value in given.items():
        owner, _, field = key.rpartition(".")
        owner = owner or (terms[0] if len(terms) == 1 else "")
        if owner not in found:
            raise InputError(f"--set {key}: expected METHOD.FIELD of {', '.join(terms) or 'a method that has any'}")
        found[owner][field] = value
    return found


def _stages(objective: ObjectiveSpec, teacher: str, student: str, image: str, pairing: Literal["deep", "left"]) -> str:
    """The stages of two networks, how they meet, and what each term that does not read the pairs is handed."""
    from kdzoo.explain import maps_read, stage_pairs
    from kdzoo.models.network import build_network, pair_stages, probe
    from kdzoo.models.weights import parse_network
    from kdzoo.spec import NetworkSpec

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", image)
    if match is None:
        raise InputError(f"--image: expected CHANNELSxHEIGHTxWIDTH such as 3x32x32, got {image!r}")
    channels, height, width = map(int, match.groups())

    def shapes_of(text: str) -> Shapes:
        asked = parse_network(text)
        spec = NetworkSpec(name=asked.name, classes=10, start="random", stem=asked.stem, image_size=asked.image_size)
        network = build_network(spec, channels=channels, side=width, mean=[0.5] * channels, std=[0.5] * channels, seed=0)
        return probe(network, (channels, height, width))

    ours, theirs = shapes_of(student), shapes_of(teacher)
    pairs = pair_stages(ours, theirs, pairing)
    return "\n".join([stage_pairs(ours, theirs, pairs), *maps_read(objective, ours, theirs, pairs)])


def check(file: Annotated[Path, typer.Argument(help="A Python file that registers methods.")]) -> int:
    """Check your own loss: the checks that every method of the zoo passes, with what to write instead where one fails.

    The checks call the loss on small random outputs and train one step of two small networks; it takes seconds and no data.
    Exit status: 0 all passed, 1 a check failed, 2 the file cannot be used.

    \b
    Example:
      kdzoo check my_loss.py
    """
    from kdzoo.method import REGISTRY, load_plugin

    load_plugin(file)
    registered = [cls for cls in map(REGISTRY.get, REGISTRY.names()) if cls.card.plugin == str(file.resolve())]
    if not registered:
        raise InputError(f'{file}: registers no method; write @kdzoo.register("NAME") above a function or a kdzoo.Method')
    return max([_checked(cls.card.name) for cls in registered])


def _checked(name: str) -> int:
    """Run the checks on a method as declared and print them; 1 where one fails."""
    from kdzoo.conformance import Verdict
    from kdzoo.conformance import check as findings_of
    from kdzoo.method import REGISTRY

    try:
        findings = findings_of(REGISTRY.get(name))
    except InputError as error:
        _print_hanging(f"{name}: ", f"cannot be checked: {'; '.join(error.problems)}")
        return 1
    count = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    ran = len(findings) - count[Verdict.not_applicable]
    result = f"{count[Verdict.failed]} failed" if count[Verdict.failed] else "all passed"
    rest = [f"{count[verdict]} {verdict}" for verdict in (Verdict.skipped, Verdict.not_applicable) if count[verdict]]
    _print_hanging("", f"{name}: {', '.join([f'{ran} checks', result, *rest])}")
    for finding in findings:
        if finding.verdict is not Verdict.skipped:
            words = f": {finding.words}" if finding.words else ""
            _print_hanging(f"  {finding.verdict:14} ", f"{finding.check}{words}")
    for cause, headings in _by_cause(findings).items():
        named = f": {'; '.join(headings)}" if len(headings) <= NAMED else ""
        text = f"{len(headings)} that would only repeat the fault of `{cause}`{named}"
        _print_hanging(f"  {Verdict.skipped:14} ", text)
    heard: dict[str, str] = {}
    for place, text in (pair for finding in findings for pair in finding.warnings):
        heard.setdefault(place, text)  # the same line warns of every shape anew
    for place, text in heard.items():
        _print_hanging(f"  {'warning':14} ", f"{place}: {text}")
    return 1 if count[Verdict.failed] else 0


def _by_cause(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """The headings of the checks that were skipped, by that of the check whose fault they would repeat."""
    causes: dict[str, list[str]] = {}
    for finding in findings:
        if finding.verdict == "skipped":
            causes.setdefault(finding.words, []).append(finding.check)
    return causes


def _print_hanging(first: str, text: str) -> None:
    """One line in a pipe; on a terminal broken between words, below where `text` begins."""
    if not console().is_terminal:
        print(first + text)
        return
    print(
        textwrap.fill(
            text, console().width, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False, break_on_hyphens=False
        )
    )
