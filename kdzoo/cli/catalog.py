"""What there is: `kdzoo methods`, `networks`, `pairs`, `recipes`, `data`; what a method means: `explain`; `check` for your own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from kdzoo.cli import complete
from kdzoo.cli.complete import timm_names
from kdzoo.cli.options import (
    EXIT_CODES,
    LISTING,
    AsJson,
    Command,
    DataRoot,
    Group,
    JsonOnly,
    Kind,
    Plugins,
    argument,
    chosen,
    option,
)
from kdzoo.cli.output import Column, Format, compact, field, link, print_json, say, show, tell, text
from kdzoo.errors import InputError, did_you_mean, unknown
from kdzoo.models.known import own_networks
from kdzoo.runs.options import PAIR
from kdzoo.suite.plan.config import assignments, recipe_file
from kdzoo.suite.plan.config import recipes as recipe_names
from kdzoo.text import first_line, number_of

if TYPE_CHECKING:
    from kdzoo.conformance.checks import Finding
    from kdzoo.contract.shapes import Shapes
    from kdzoo.data.known import DataSet
    from kdzoo.models.known import Known
    from kdzoo.runs.spec import ObjectiveSpec
    from kdzoo.suite.plan.config import PairValues, RecipeFile

LITERATURES_EPOCHS = 240
"""of the CIFAR recipe that a first stage's epochs are shown for"""


NAMED = 8
"""skipped checks that are listed by their headings; of more only the number"""
SETTING = "The setting"


class Pairing(StrEnum):
    """How the stages of two networks are paired."""

    deep = "deep"
    left = "left"


def by_declarations(command: Callable[..., int]) -> Callable[..., int]:
    """A command that reads what methods declare and runs none of them, so that it need not wait for torch."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> int:
        from kdzoo.contract.methods import REGISTRY

        with REGISTRY.declarations():
            return command(*args, **options)

    return run


@by_declarations
def methods(
    family: Annotated[
        str | None, option(text="Only these families: logits, features, relations, ...", default="all", panel=LISTING, metavar="NAME,...")
    ] = None,
    needs: Annotated[
        str | None,
        option(
            text="Only methods that read all of these: stages, second_view, targets, ...", default="any", panel=LISTING, metavar="NEED,..."
        ),
    ] = None,
    plugin: Plugins = None,
    how: Kind = Format.table,
    as_json: AsJson = False,
) -> int:
    """List the methods: family, published weights, paper, what each reads of the two networks, and its hyper-parameters.

    The student alone is called `none`. Sums are written at+hinton.

    \b
    Examples:
      kdzoo methods
      kdzoo methods --family features,relations
      kdzoo methods --needs stages,second_view
      kdzoo methods --plugin my_loss.py --format md
    """
    from kdzoo.contract.card import FAMILIES
    from kdzoo.contract.methods import REGISTRY
    from kdzoo.contract.needs import Need

    _load(plugin)
    by_word = {str(need.name).lower(): need for need in Need if need.value}
    families, words = _asked("family", family, FAMILIES), _asked("needs", needs, by_word)
    found = [REGISTRY.get(name) for name in REGISTRY.names()]
    if families:
        found = [cls for cls in found if cls.card.family in families]
    for word in words:
        found = [cls for cls in found if by_word[word] in cls.card.needs.student | cls.card.needs.teacher]
    show([_method_row(cls) for cls in found], chosen(how, as_json), names=METHOD_KEYS, columns=METHOD_COLUMNS)
    for name, reason in REGISTRY.broken.items():
        say(f"the installed plugin {name} could not be loaded: {reason}")
    return 0


def _load(plugin: Sequence[str] | None) -> None:
    """Run the user's files, so that what they register is listed; without any, nothing is imported for it."""
    if plugin:
        from kdzoo.contract.plugins import load_plugins

        load_plugins(plugin)


def _asked(option: str, text: str | None, known: Iterable[str]) -> list[str]:
    """The words of a list joined with commas; raises InputError with every one that is not known."""
    names = list(known)
    asked = [word.strip().lower() for word in (text or "").split(",") if word.strip()]
    if wrong := [unknown(f"--{option}", word, names) for word in asked if word not in names]:
        raise InputError(*wrong)
    return asked


METHOD_KEYS = ("method", "family", "task_weight", "term_weight", "reads", "hyperparameters", "title", "year", "url", "summary")
METHOD_COLUMNS = (
    field("method"),
    field("family"),
    Column("weights", lambda row: f"{row['task_weight']:g} CE + {row['term_weight']:g} D"),
    Column("paper", lambda row: link(reference(row["url"], row["year"]), row["url"])),
    field("reads"),
    Column("hyper-parameters", lambda row: text(row["hyperparameters"])),
    Column("title", lambda row: row["title"] or row["summary"]),
    field("url"),
)


def _method_row(cls: Any) -> dict[str, Any]:
    """A method's card as plain values; `Any`, since the class brings torch with it."""
    from kdzoo.contract.explain import in_words

    card = cls.card
    return {
        "method": card.name,
        "family": card.family,
        "task_weight": card.published.task,
        "term_weight": card.published.term,
        "reads": in_words(card.needs.student | card.needs.teacher).split(", "),
        "hyperparameters": {name: "required" if value.is_required() else value.default for name, value in cls.model_fields.items()},
        "title": card.source.title if card.source else None,
        "year": card.source.year if card.source else None,
        "url": card.source.url if card.source else None,
        "summary": card.summary,
    }


def reference(url: str | None, year: int | None = None) -> str:
    """A URL in a few letters: `arXiv:1503.02531`, `doi:10.1145/3097983.3098135`, else the site and the year."""
    if not url:
        return ""
    for pattern, words in REFERENCES:
        if match := re.search(pattern, url):
            return words + match.group(1).replace("_", " ")
    site = url.partition("://")[2].partition("/")[0].removeprefix("www.")
    return f"{site} {year}" if year else site


REFERENCES = (
    (r"arxiv\.org/abs/([\w.-]+)", "arXiv:"),
    (r"doi\.org/(.+)", "doi:"),
    (r"openreview\.net/forum\?id=(\w+)", "OpenReview:"),
    (r"thecvf\.com/.*_((?:CVPR|ICCV|WACV)_\d+)_paper", ""),
    (r"github\.com/(.+)", "github:"),
)
"""what is told of a URL, and what stands before it"""


def networks(
    like: Annotated[
        str | None,
        argument(
            "A part of the name, or a pattern such as 'resnet*', to search timm's too.",
            default="kdzoo's own",
            names_of=complete.networks,
            metavar="NAME",
        ),
    ] = None,
    plugin: Plugins = None,
    how: Kind = Format.table,
    as_json: AsJson = False,
) -> int:
    """List kdzoo's own networks with their sizes, and those of your plugins; with a part of a name, those of timm that have it too.

    Parameters, and multiply-accumulates (MACs) of one image, are those of a network with as many classes as are listed.
    mlp_WIDTH_WIDTH is a fully connected network of any widths, a width a hidden layer.

    \b
    Examples:
      kdzoo networks
      kdzoo networks 'mobilenetv3*'
    """
    _load(plugin)
    own = own_networks()
    names = sorted({*own, *_registered(plugin)})
    if like is not None:
        names = [name for name in sorted({*names, *timm_names()}) if _matches(name, like)]
        if not names:
            raise InputError(f"networks: no name has {like!r} in it{did_you_mean(like, [*own, *timm_names()])}")
    rows = [_network_row(name, own.get(name)) for name in names]
    sized = any(row["parameters"] is not None for row in rows)
    show(rows, chosen(how, as_json), names=NETWORK_KEYS, columns=NETWORK_COLUMNS if sized else NETWORK_COLUMNS[:1])
    if like is None and chosen(how, as_json) is Format.table:
        tell(f"\nAnd {len(timm_names()):,} of timm: kdzoo networks NAME, with a part of the name.")
    return 0


NETWORK_KEYS = ("network", "parameters", "macs", "input", "classes")
NETWORK_COLUMNS = (
    field("network"),
    Column("parameters", lambda row: compact(row["parameters"]), number=True),
    Column("MACs", lambda row: compact(row["macs"]), number=True),
    Column("input", lambda row: "x".join(map(str, row["input"] or ()))),
    field("classes", number=True),
)


def _registered(plugin: Sequence[str] | None) -> list[str]:
    """The networks that a user's files have registered."""
    if not plugin:
        return []
    from kdzoo.models.names import list_networks

    return list_networks()


def _network_row(name: str, known: Known | None) -> dict[str, Any]:
    sizes = (known.parameters, known.macs, list(known.input), known.classes) if known else (None,) * 4
    return dict(zip(NETWORK_KEYS, (name, *sizes), strict=True))


def _matches(name: str, like: str) -> bool:
    from fnmatch import fnmatch

    return fnmatch(name, like) if any(sign in like for sign in "*?[") else like in name


def pairs(plugin: Plugins = None, how: Kind = Format.table, as_json: AsJson = False) -> int:
    """List the named pairs of teacher and student, with the top-1 (%) that the literature reports for each alone.

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
            "data": pair.data,
            "teacher": pair.teacher,
            "student": pair.student,
            "teacher_top1": pair.published and pair.published[0],
            "student_top1": pair.published and pair.published[1],
            "source": pair.source or None,
        }
        for pair in PAIRS.values()
    ]
    show(
        rows,
        chosen(how, as_json),
        columns=(
            field("pair"),
            Column("data", lambda row: row["data"]),
            Column("top-1 reported", lambda row: f"{row['teacher_top1']:.2f} / {row['student_top1']:.2f}" if row["teacher_top1"] else ""),
            Column("source", lambda row: link(reference(row["source"]), row["source"])),
            field("teacher"),
            field("student"),
            Column("url", lambda row: text(row["source"])),
        ),
    )
    return 0


def recipes(plugin: Plugins = None, how: Kind = Format.table, as_json: AsJson = False) -> int:
    """List the recipes: how networks are trained. A YAML file of your own serves as one too (--recipe my.yaml).

    \b
    Example:
      kdzoo recipes
    """
    _load(plugin)
    rows = []
    for name in recipe_names():
        file = recipe_file(name)
        recipe = file.resolve("", {})
        rows.append(
            {
                "recipe": name,
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "lr": recipe.lr,
                "optimizer": recipe.optimizer,
                "schedule": recipe.schedule,
                "val_fraction": file.val_fraction,
                "refit": file.refit,
                "description": file.description,
                "source": file.source or None,
            }
        )
    show(
        rows,
        chosen(how, as_json),
        columns=(
            field("recipe"),
            field("description"),
            field("epochs", number=True),
            Column("batch", lambda row: str(row["batch_size"]), number=True),
            field("lr", number=True),
            field("optimizer"),
            field("schedule"),
            field("val_fraction", number=True),
            field("refit"),
            Column("source", lambda row: link(reference(row["source"]), row["source"])),
            Column("url", lambda row: text(row["source"])),
        ),
    )
    return 0


class _DataGroup(Group):
    """`kdzoo data NAME` is `kdzoo data show NAME`; `kdzoo data` lists."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        known = not args or args[0].startswith("-") or self.get_command(ctx, args[0]) is not None
        return super().resolve_command(ctx, args if known else ["show", *args])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        from typer._click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in complete.data(Path(), incomplete) if name.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *names]


data = typer.Typer(cls=_DataGroup, rich_markup_mode="rich", invoke_without_command=True, epilog=EXIT_CODES)


@data.callback()
def data_sets(ctx: typer.Context) -> None:
    """List the data sets, show one, or download one.

    \b
    Examples:
      kdzoo data                    the data sets there are, and which are on this machine
      kdzoo data digits             what one of them holds
      kdzoo data prepare cifar100   download and check it
    """
    if ctx.invoked_subcommand is None:
        data_list()


@data.command("list", cls=Command, epilog=EXIT_CODES)
def data_list(data_root: DataRoot = None, plugin: Plugins = None, how: Kind = Format.table, as_json: AsJson = False) -> int:
    """List the data sets: images, classes, size, and where each is on this machine or how to get it.

    \b
    Example:
      kdzoo data list --data-root ~/data
    """
    from kdzoo.data.known import DATA

    _load(plugin)
    root = Path(data_root) if data_root else None
    show([_data_row(name, known, root) for name, known in DATA.items()], chosen(how, as_json), columns=DATA_COLUMNS)
    return 0


DATA_COLUMNS = (
    field("data"),
    Column("images", lambda row: "" if row["train"] is None else f"{row['train']:,}+{row['test']:,}", number=True),
    field("classes", number=True),
    Column("size", lambda row: _size(row["shape"])),
    Column("on this machine", lambda row: _here(row)),
    field("description"),
    field("path"),
)


def _data_row(name: str, known: DataSet, root: Path | None) -> dict[str, Any]:
    from kdzoo.data.known import HALVED, where

    is_folder = name.startswith("folder:")
    found = None if is_folder else where(name, root)
    return {
        "data": name,
        "train": known.train,
        "test": known.test,
        "classes": known.classes,
        "shape": known.shape and list(known.shape),
        "description": known.description,
        "here": found is not None,
        "path": found if known.files and found else None,
        "get": (known.get or f"kdzoo data prepare {HALVED.get(name, name)}") if found is None and not is_folder else None,
    }


def _here(row: Mapping[str, Any]) -> str:
    """Whether a data set is on this machine, or the command that fetches it, or the one that tells how to."""
    if row["get"]:
        return str(row["get"]) if str(row["get"]).startswith("kdzoo ") else f"kdzoo data {row['data']}"
    return "yes" if row["path"] else "built in" if row["here"] else "your folder"


def _size(shape: Sequence[int] | None) -> str:
    """`32x32 colour`."""
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'colour'}" if shape else ""


@data.command("show", cls=Command, epilog=EXIT_CODES)
def data_show(
    name: Annotated[str, argument("A data set's name, or folder:PATH.", metavar="NAME", names_of=complete.data)],
    data_root: DataRoot = None,
    plugin: Plugins = None,
    how: Kind = Format.table,
    as_json: AsJson = False,
) -> int:
    """Read a data set; print its source, its splits, its classes and which files were ignored. `show` may be left out.

    \b
    Examples:
      kdzoo data show digits
      kdzoo data folder:photos
    """
    from kdzoo.data.report import data_lines, data_record
    from kdzoo.data.sources import load
    from kdzoo.data.split import split
    from kdzoo.runs.spec import DataSpec

    _load(plugin)
    images = load(name, root=Path(data_root) if data_root else None, allow_download=False)
    spec = DataSpec(name=images.name, fingerprint=images.fingerprint, classes=len(images.classes), val_fraction=0.1 if images.val else 0.0)
    record = data_record(images, split(images, spec))
    parts = {"train": images.train, "val": images.val, "test": images.test}
    targets = {part: subset.targets.tolist() for part, subset in parts.items() if subset is not None}
    counts = [{"class": label, **{part: ys.count(n) for part, ys in targets.items()}} for n, label in enumerate(images.classes)]
    if chosen(how, as_json) is Format.json:
        print_json({**record, "counts": counts})
        return 0
    for line in data_lines(record):
        say(line.removeprefix("data: "))
    show(counts, how)
    return 0


@data.command("prepare", cls=Command, epilog=EXIT_CODES)
def data_prepare(
    name: Annotated[str, argument("mnist, cifar10 or cifar100.", metavar="NAME", names_of=complete.downloads)], data_root: DataRoot = None
) -> int:
    """Download a data set through torchvision, and check it. If it is there already, only check it.

    \b
    Example:
      kdzoo data prepare cifar100 --data-root ~/data
    """
    from kdzoo.data.known import data_root as chosen_root
    from kdzoo.data.sources import load, prepare

    root = Path(data_root) if data_root else None
    try:
        prepare(name, root)
    except (OSError, RuntimeError) as error:
        reason = first_line(error)
        raise InputError(
            f"data: {name} could not be downloaded ({type(error).__name__}: {reason}); copy its files below {chosen_root(root)} by hand"
        ) from error
    images = load(name, root=root)
    line = f"{name}: {len(images.train.targets)} + {len(images.test.targets)} images, {len(images.classes)} classes, in {chosen_root(root)}"
    tell(line)
    return 0


@by_declarations
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
            text="deep pairs stages of the nearest size from the last one on, left by position from the first.",
            default="the recipe's, else deep",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.of(*Pairing),
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        option(
            text="Use a recipe's pairing, and its values for this pair of networks.",
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
    from kdzoo.suite.plan.methods import objective, parse_request

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
    if as_json:
        print_json(_explained_row(made))
        return 0
    tell(explained(made))
    for line in _measured(made, results):
        tell(line)
    if recipe and protocol:
        tell("\n".join(_values_of(Path(recipe).stem, protocol, request.terms, pair)))
    if teacher and student:
        tell(_stages(made, teacher, student, image, meet))
    return 0


def _explained_row(made: ObjectiveSpec) -> dict[str, Any]:
    """What explain prints, as plain values."""
    from kdzoo.contract.explain import formula
    from kdzoo.contract.methods import REGISTRY

    cards = [{**_method_row(cls), "scale": cls.card.scale} for cls in (REGISTRY.get(term.method) for term in made.all_terms)]
    return {"formula": formula(made), "objective": made.model_dump(mode="json"), "methods": cards}


def _measured(made: ObjectiveSpec, results: Path) -> list[str]:
    """What the benches below a folder have measured of the terms of an objective, a line a measurement."""
    from kdzoo.runs.spec import canonical
    from kdzoo.suite.plan.doses import NAME, of_method, read_doses, weight_for

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
    from kdzoo.contract.methods import REGISTRY

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
    from kdzoo.contract.explain import maps_read, stage_pairs
    from kdzoo.models.build import build_network
    from kdzoo.models.measure import probe
    from kdzoo.models.stages import pair_stages
    from kdzoo.models.weights import parse_network
    from kdzoo.runs.spec import NetworkSpec

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


def check(file: Annotated[Path, argument("A Python file that registers methods.", metavar="FILE")]) -> int:
    """Check your own loss: the checks that every method of the zoo passes, with what to write instead where one fails.

    The checks call the loss on small random outputs and train one step of two small networks; it takes seconds and no data.

    \b
    Example:
      kdzoo check my_loss.py
    """
    from kdzoo.contract.methods import REGISTRY
    from kdzoo.contract.plugins import load_plugin

    load_plugin(file)
    registered = [cls for cls in map(REGISTRY.get, REGISTRY.names()) if cls.card.plugin == str(file.resolve())]
    if not registered:
        raise InputError(f'{file}: registers no method; write @kdzoo.register("NAME") above a function or a kdzoo.Method')
    return max([_checked(cls.card.name) for cls in registered])


def _checked(name: str) -> int:
    """Run the checks on a method as declared and print them; 1 where one fails."""
    from kdzoo.conformance.checks import Verdict
    from kdzoo.conformance.checks import check as findings_of
    from kdzoo.contract.methods import REGISTRY

    try:
        findings = findings_of(REGISTRY.get(name))
    except InputError as error:
        tell(f"{name}: cannot be checked: {'; '.join(error.problems)}")
        return 1
    count = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    ran = len(findings) - count[Verdict.not_applicable]
    result = f"{count[Verdict.failed]} failed" if count[Verdict.failed] else "all passed"
    rest = [f"{count[verdict]} {verdict}" for verdict in (Verdict.skipped, Verdict.not_applicable) if count[verdict]]
    tell(f"{name}: {', '.join([f'{ran} checks', result, *rest])}")
    for finding in findings:
        if finding.verdict is not Verdict.skipped:
            words = f": {finding.words}" if finding.words else ""
            tell(f"  {finding.verdict:14}  {finding.check}{words}")
    for cause, headings in _by_cause(findings).items():
        named = f": {'; '.join(headings)}" if len(headings) <= NAMED else ""
        text = f"{number_of(len(headings), 'check')} that would only repeat the fault of `{cause}`{named}"
        tell(f"  {Verdict.skipped:14}  {text}")
    heard: dict[str, str] = {}
    for place, text in (pair for finding in findings for pair in finding.warnings):
        heard.setdefault(place, text)  # the same line warns of every shape anew
    for place, text in heard.items():
        tell(f"  {'warning':14}  {place}: {text}")
    return 1 if count[Verdict.failed] else 0


def _by_cause(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """The headings of the checks that were skipped, by that of the check whose fault they would repeat."""
    causes: dict[str, list[str]] = {}
    for finding in findings:
        if finding.verdict == "skipped":
            causes.setdefault(finding.words, []).append(finding.check)
    return causes
