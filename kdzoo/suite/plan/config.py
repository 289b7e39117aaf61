"""What a bench is asked for: options of the command line over a YAML file over defaults. Free of torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, ValidationError, ValidationInfo, field_validator

from kdzoo.contract.registry import Definition, Registry
from kdzoo.errors import InputError, did_you_mean
from kdzoo.files import CONFIGS
from kdzoo.runs.options import ExecutionSpec, listed
from kdzoo.runs.spec import Augment, Count, Integer, Number, Recipe, Share, Spec, parse, steps_per_epoch
from kdzoo.text import first_line

NONE = "none"
"""the student alone"""
KD = "hinton"
CONTROLS = (NONE, KD)
"""what every bench contains"""
DISTILL_METHOD = "hinton"
"""the method of `kdzoo distill`: few images teach more through the teacher's whole embedding than through a score for each class"""
DISTILL_RECIPE = "distill"
DISTILL_STUDENT = "mobilenetv3_small_100"


def _class_words(value: object) -> object:
    """Classes by name or number, each perhaps behind a minus, as text. Raises ValueError for a list without any."""
    words = listed(value)
    assert isinstance(words, tuple)
    if value is not None and not words:
        raise ValueError("expected at least one class")
    if wrong := [item for item in words if isinstance(item, bool) or not isinstance(item, str | int)]:
        raise ValueError(f"expected names or numbers of classes, got {wrong[0]!r}")
    return tuple(map(str, words)) or None


def _numbers(value: object) -> object:
    parts = listed(value)
    return tuple(_number(part) if isinstance(part, str) else part for part in parts) if isinstance(parts, tuple) else parts


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _seeds(value: object) -> object:
    """A single number n means the seeds 0 to n - 1; a list, which a comma makes of one number too, means itself."""
    numbers = _numbers(value)
    is_list = isinstance(value, list | tuple) or (isinstance(value, str) and "," in value)
    if is_list or not isinstance(numbers, tuple) or len(numbers) != 1:
        return numbers
    count = numbers[0]
    if not isinstance(count, int) or isinstance(count, bool):
        return numbers
    if count < 1:
        raise ValueError(f"expected a number of seeds >= 1, or a list, got {value}")
    return tuple(range(count))


def _folder_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) is None:
        raise ValueError(f"expected a folder's name of letters, digits, '.', '_' and '-', got {value!r}")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
ClassWords = Annotated[tuple[str, ...] | None, BeforeValidator(_class_words)]
Numbers = Annotated[tuple[Number, ...], BeforeValidator(_numbers)]
Values = Annotated[tuple[JsonValue, ...], BeforeValidator(_numbers)]
"""values of any field of a method: what they may be is the method's to say"""
Seeds = Annotated[tuple[Integer, ...], BeforeValidator(_seeds), Field(min_length=1)]


class BenchConfig(ExecutionSpec):
    """A bench in words, with how it is executed. Every field is an option of `kdzoo bench` and a key of a YAML file.

    methods: `hinton`, sums such as `at+hinton`, or exactly `0.1*ce+0.9*hinton`. temperatures, alphas, weights, doses and
    grid (`method.field: values`, `method.dose: values`) are the swept axes. doses: sizes of each term's gradient beside that
    of cross-entropy, measured for the networks at hand; they set the weights, as alphas and weights do otherwise.
    doses_from: the folder of a bench whose measurements are used where they are of the same thing.
    fine_tune: a teacher made for other classes is trained on these first.
    tune: how many settings of each method's search list are tried.
    refit_seeds: how many seeds a refit has, of the controls too; as many as the sweep unless given.
    control_seeds: how many seeds the student alone and plain KD get, at least as many as the rest; theirs go on after `seeds`.
    transfer_classes: the classes whose images the student is taught on, by name or number, or behind a minus those whose
    images it is not; the teacher learns all of them. label_fraction: the share of these images that keep their labels.
    transfer_data: images without labels that the student is taught on besides, `folder:PATH` or the training images of
    another data set by name. transfer_only: on these alone.
    skip_unreadable: files of a folder that cannot be read are skipped, counted and listed, instead of refused.
    pairs: `teacher/student`, or give teacher and student. set: further keys, such as `recipe.batch_size`.
    recipe: a recipe's name or file; or, in a YAML file and from Python, a mapping of its keys, with `name` for the recipe that
    they change: `{name: digits, epochs: 5}`.
    """

    name: Annotated[str, AfterValidator(_folder_name)] = "bench"
    methods: Annotated[Names, Field(min_length=1)] = ("hinton", "at")
    temperatures: Numbers = ()
    alphas: Numbers = ()
    weights: Numbers = ()
    doses: Numbers = ()
    doses_from: str | None = None
    grid: dict[str, Values] = {}
    tune: Count | None = None
    refit: bool | None = None
    seeds: Seeds = (0, 1, 2)
    control_seeds: Count | None = None
    refit_seeds: Count | None = None
    pairs: Names = ()
    teacher: str | None = None
    student: str | None = None
    data: str = "digits"
    data_root: str | None = None
    limit: Count | None = None
    label_fraction: Annotated[Number, Field(gt=0, le=1)] = 1.0
    transfer_classes: ClassWords = None
    transfer_data: str | None = None
    transfer_only: bool = False
    val_fraction: Share | None = None
    split_seed: Integer = 0
    recipe: str = "smoke"
    epochs: Count | None = None
    lr: Annotated[Number, Field(gt=0)] | None = None
    set: dict[str, Any] = {}
    results: str = "results"
    skip_unreadable: bool = False
    fine_tune: bool = False
    wandb: Literal["online", "offline", "disabled"] | None = None
    plugin: Names = ()

    @field_validator("control_seeds")
    @classmethod
    def _no_fewer_than_the_rest(cls, value: int | None, info: ValidationInfo) -> int | None:
        seeds = info.data.get("seeds", ())
        if value is not None and value < len(seeds):
            raise ValueError(f"expected at least as many as the other methods have ({len(seeds)}), got {value}")
        return value

    @field_validator("transfer_only")
    @classmethod
    def _only_with_images(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("transfer_data") is None:
            raise ValueError("expected transfer_data as well, the images that the student is taught on")
        beside = [name for name, usual in (("transfer_classes", None), ("label_fraction", 1.0)) if info.data.get(name, usual) != usual]
        if value and beside:
            raise ValueError(f"the student is taught on no training images, which {' and '.join(beside)} would choose among")
        return value

    @field_validator("doses")
    @classmethod
    def _no_negative_dose(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if negative := [dose for dose in value if dose < 0]:
            raise ValueError(f"expected numbers >= 0, got {', '.join(f'{dose:g}' for dose in negative)}")
        return value

    @property
    def seeds_of_controls(self) -> tuple[int, ...]:
        """The seeds of all, and as many after the highest of them as the controls have more."""
        more = max(0, (self.control_seeds or 0) - len(self.seeds))
        return (*self.seeds, *range(max(self.seeds) + 1, max(self.seeds) + 1 + more))

    def seeds_for(self, method: str) -> tuple[int, ...]:
        """The seeds of a method: the controls, `none` and `hinton`, may have more than the rest."""
        return self.seeds_of_controls if method in CONTROLS else self.seeds


LARGEST_VAL = 0.25
"""of the training images: validation takes no larger share, however few they are"""


class PairValues(Spec):
    """What is published of a method for one pair of networks: the factor on its loss (None for the declared one), hyper-parameters."""

    term: Annotated[Number, Field(gt=0)] | None = None
    hyperparameters: dict[str, JsonValue] = {}


class PublishedValues(Spec):
    """Where a method's values for single pairs stand, and the values by the pair's name, `TEACHER/STUDENT`."""

    source: str
    pairs: dict[str, PairValues]


class Constants(Spec):
    """What images in [0, 1] are normalised with, one number a channel."""

    mean: Annotated[tuple[Number, ...], BeforeValidator(listed)]
    std: Annotated[tuple[Number, ...], BeforeValidator(listed)]


class FineTune(Spec):
    """What is different where a teacher that brings weights of other classes is trained on these first.

    recipe: keys of the recipe and their values. min_steps: as in a recipe's file.
    """

    recipe: dict[str, Any] = {}
    min_steps: Count | None = None


class RecipeFile(Spec):
    """A recipe with what belongs to its protocol beside it.

    lr_for: networks trained at another rate. normalise_for: data sets whose images are normalised with other constants
    than their own. pairing, refit, val_fraction, student_start: the protocol's own choices. published: by method, what
    single pairs have instead of the method's declared values.
    min_steps: training has as many epochs more as this takes, however few the images. min_val: how many images validation
    has at least, up to a quarter of them. sizes: the sides of images that `kdzoo distill` chooses from. pretrained: keys of
    the recipe that differ for a network that brings trained weights (null leaves a key out). fine_tune: what else differs
    for a teacher whose weights were made for other classes.
    """

    description: str
    source: str = ""
    recipe: dict[str, Any]
    lr_for: dict[str, Number] = {}
    normalise_for: dict[str, Constants] = {}
    published: dict[str, PublishedValues] = {}
    pairing: Literal["deep", "left"] = "deep"
    refit: bool = False
    val_fraction: Share = 0.1
    student_start: Literal["random", "pretrained"] = "random"
    min_steps: Count | None = None
    min_val: Count | None = None
    sizes: Annotated[tuple[Count, ...], BeforeValidator(listed)] = ()
    pretrained: dict[str, Any] = {}
    fine_tune: FineTune | None = None

    def published_for(self, pair: str) -> dict[str, PairValues]:
        """The values of their own that methods have for a pair."""
        return {method: given.pairs[pair] for method, given in self.published.items() if pair in given.pairs}

    def held_out(self, images: int) -> float:
        """The share of `images` training images that is held out for validation: `val_fraction`, or more to reach `min_val`."""
        if not self.val_fraction or self.min_val is None:
            return self.val_fraction
        return max(self.val_fraction, min(LARGEST_VAL, self.min_val / max(images, 1)))

    def variant(self, *, trained: bool, fine_tuned: bool) -> RecipeFile:
        """The protocol for a network that brings trained weights, and for one that is fine-tuned to other classes before it teaches."""
        layers = [self.recipe, self.pretrained if trained else {}]
        steps = self.min_steps
        if fine_tuned and self.fine_tune is not None:
            layers.append(self.fine_tune.recipe)
            steps = self.fine_tune.min_steps
        merged = {key: value for layer in layers for key, value in layer.items()}
        recipe = {key: value for key, value in merged.items() if value is not None}
        return self.model_copy(update={"recipe": recipe, "min_steps": steps})

    def resolve(self, network: str, changes: Mapping[str, Any], data: str = "", images: int | None = None) -> Recipe:
        """The recipe for a network and a data set with `changes` (`epochs`, `augment.pad`, ...) applied.

        images: how many it is trained on; with them epochs come to `min_steps` at least, unless `changes` say how many.
        Milestones come to whole epochs of however many there are.
        """
        values: dict[str, Any] = {**self.recipe, "augment": dict(self.recipe.get("augment", {}))}
        if network in self.lr_for:
            values["lr"] = self.lr_for[network]
        if data in self.normalise_for:
            values |= self.normalise_for[data].model_dump()
        for key, value in changes.items():
            place, _, last = key.rpartition(".")
            if place == "augment":
                values["augment"][last] = value
            else:
                values[key] = value
        if values.get("ema") is not None:
            values.setdefault("ema_warmup", True)
        recipe = parse(Recipe, values, "recipe")
        if self.min_steps is not None and images is not None and "epochs" not in changes:
            epochs = math.ceil(self.min_steps / max(steps_per_epoch(images, recipe.batch_size, drop_last=recipe.drop_last), 1))
            recipe = recipe.model_copy(update={"epochs": max(recipe.epochs, epochs)})
        return in_whole_epochs(recipe)


def in_whole_epochs(recipe: Recipe) -> Recipe:
    """The recipe with its milestones at the nearest ends of epochs, the first one at least.

    One that comes to the end of training is never reached and goes; where none is left the rate is constant.
    """
    ends = [max(1, math.floor(milestone * recipe.epochs + 0.5)) for milestone in recipe.milestones]
    shares = tuple(end / recipe.epochs for end in ends if end < recipe.epochs)
    if shares == recipe.milestones:
        return recipe
    return recipe.model_copy(update={"milestones": shares, "schedule": recipe.schedule if shares else "constant"})


AXES = frozenset({"temperatures", "alphas", "weights", "doses", "grid", "tune"})
"""what says which settings are tried: one of these takes the place of a default's"""


def default_layers(given: Mapping[str, Any]) -> dict[str, Any]:
    """What stands below the options given: the default bench, or what a data set usually goes with."""
    default = read_yaml(_shipped("benches")["digits"])
    if not {"teacher", "student", "recipe"} & set(given) and all(_same(given.get(key), default[key]) for key in ("data", "pairs")):
        return {k: v for k, v in default.items() if k not in AXES} if set(given) & AXES else default
    usual = read_yaml(CONFIGS / "usual.yaml").get(str(given.get("data", default["data"])), {})
    named = {"pairs", "teacher", "student"} & set(given)
    return {k: v for k, v in usual.items() if not (k == "pairs" and named)}


def _same(given: object, default: object) -> bool:
    """Whether an option was not given, or has the default bench's value."""
    try:
        return given is None or listed(given) == listed(default)
    except ValueError:  # told with all else that is wrong
        return False


class ConfigError(InputError):
    """A configuration with faults. rest: the same without what is at fault, where that still says which bench is meant."""

    def __init__(self, problems: Iterable[str], rest: BenchConfig | None) -> None:
        super().__init__(*problems)
        self.rest = rest


def bench_config(options: Mapping[str, Any], file: Path | None) -> BenchConfig:
    """The bench that options over a YAML file over defaults describe; raises ConfigError with every fault of theirs."""
    problems: list[str] = []
    options = with_recipe_keys(options, problems)
    filed = with_recipe_keys(_under(read_yaml(file) if file else {}, options), problems)
    layers = [default_layers({**filed, **options}), filed, options]
    sets = [layer.get("set") or {} for layer in layers]
    if not all(isinstance(changes, Mapping) for changes in sets):
        raise InputError(*problems, f"set: expected keys and values, got {next(c for c in sets if not isinstance(c, Mapping))!r}")
    values = {**layers[0], **layers[1], **layers[2], "set": {key: value for changes in sets for key, value in changes.items()}}
    try:
        config = parse(BenchConfig, values, "")
    except InputError as error:
        raise ConfigError([*problems, *error.problems], _without_faults(values)) from error
    if problems:
        raise ConfigError(problems, config)
    return config


def with_recipe_keys(layer: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """A layer whose `recipe` is a mapping, as the name of a recipe and `set` keys; faults of the mapping's keys are added to `problems`.

    `recipe: {name: digits, epochs: 5, augment: {pad: 2}}` is `recipe: digits` with `set: {recipe.epochs: 5,
    recipe.augment.pad: 2}`. Without a name the keys change the recipe that goes with the data.
    """
    given = layer.get("recipe")
    if not isinstance(given, Mapping):
        return dict(layer)
    rest = {key: value for key, value in layer.items() if key != "recipe"}
    named = {} if given.get("name") is None else {"recipe": given["name"]}
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key == "name":
            continue
        if key == "augment" and isinstance(value, Mapping):
            problems += [fault for part in value if (fault := _fault_of_key("recipe.augment", part, Augment.model_fields))]
            changes |= {f"recipe.augment.{part}": item for part, item in value.items() if part in Augment.model_fields}
        elif fault := _fault_of_key("recipe", key, Recipe.model_fields):
            problems.append(fault)
        else:
            changes[f"recipe.{key}"] = value
    problems += [f"{key}: given twice, here and in recipe" for key in ("epochs", "lr") if key in rest and key in given]
    explicit = rest.get("set") or {}
    return {**rest, **named, "set": {**changes, **explicit} if isinstance(explicit, Mapping) else explicit}


def _fault_of_key(place: str, key: object, known: Iterable[str]) -> str | None:
    """What is wrong with a key of a recipe's mapping."""
    names = list(known)
    if key in names:
        return None
    if key in BenchConfig.model_fields and place == "recipe":
        return f"{place}.{key}: not a key of a recipe; write {key} beside recipe, not below it"
    beside = ["name", *names] if place == "recipe" else names
    return f"{place}.{key}: unknown{did_you_mean(str(key), beside) or '; known: ' + ', '.join(beside)}"


def _under(filed: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """A file without its mapping of a recipe's keys, where that changes another recipe than the one asked for on the command line."""
    given, asked = filed.get("recipe"), options.get("recipe")
    if asked is None or not isinstance(given, Mapping) or given.get("name") in (None, asked):
        return filed
    return {key: value for key, value in filed.items() if key != "recipe"}


_WHICH_BENCH = {"methods", "grid", "pairs", "teacher", "student", "data", "data_root", "recipe", "set", "plugin"}
"""a default in the place of one of these would have faults of its own"""


def _without_faults(values: Mapping[str, Any]) -> BenchConfig | None:
    try:
        return BenchConfig.model_validate(values)
    except ValidationError as error:
        faulty = {fault["loc"][0] for fault in error.errors()}
        return None if faulty & _WHICH_BENCH else BenchConfig.model_validate({k: v for k, v in values.items() if k not in faulty})


def quick(options: Mapping[str, Any], file: Path | None = None) -> dict[str, Any]:
    """The options that make a bench a demonstration of under a minute; what was given, there or in the file, stays."""
    filed = read_yaml(file) if file else {}
    left_out = set(filed) | (AXES if AXES & {*filed, *options} else frozenset())
    return {**{key: value for key, value in read_yaml(CONFIGS / "quick.yaml").items() if key not in left_out}, **options}


def recipe_file(name: str) -> RecipeFile:
    """A recipe by its name or by a file's path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES.get(name)
    return parse(RecipeFile, read_yaml(path), f"recipe {path.stem}")


def held_out_share(config: BenchConfig) -> float:
    """The share of the training images that is held out for validation: as asked for, or else the recipe's."""
    return recipe_file(config.recipe).val_fraction if config.val_fraction is None else config.val_fraction


def wants_refit(config: BenchConfig) -> bool:
    """Whether the chosen settings are trained again on all images: where asked, or the recipe's way and something is held out."""
    protocol = recipe_file(config.recipe)  # an unknown recipe is an error whatever was asked for
    return protocol.refit and held_out_share(config) > 0 if config.refit is None else config.refit


def refit_seeds(method: str, config: BenchConfig) -> tuple[int, ...]:
    """The seeds of a method in a refit, before they are moved behind those of all sweeps."""
    if config.refit_seeds is None:
        return config.seeds_for(method)
    return tuple(range(min(config.seeds), min(config.seeds) + config.refit_seeds))


def fresh_seeds(method: str, config: BenchConfig, used: Iterable[int] = ()) -> tuple[int, ...]:
    """The seeds of a method in a refit, behind those of this sweep and of others in its folder (`used`)."""
    behind = max([*config.seeds_of_controls, *used]) + 1 - min(config.seeds)
    return tuple(seed + behind for seed in refit_seeds(method, config))


def register_recipe(name: str, file: str | Path) -> None:
    """Make a user's recipe file known under a name; raises InputError where that names another file."""
    path = Path(file).resolve()
    RECIPES.add(name, path, Definition(str(path), name, str(path)))


def recipes() -> list[str]:
    return sorted(RECIPES)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; raises InputError with file and line when there is none."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"config: cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"config: {path}:{line}: {error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"config: {path}: not valid YAML ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"config: {path}: expected keys and values")
    return content


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping, values read as YAML; raises InputError for what has no `=`."""
    texts = list(texts)
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise InputError(*[f"--set {text}: expected key=value" for text in wrong])
    return {key.strip(): _yaml_value(key.strip(), value) for key, _, value in (text.partition("=") for text in texts)}


def _yaml_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: expected a value as YAML has it, got {text!r}") from error


@cache
def _shipped(kind: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((CONFIGS / kind).glob("*.yaml"))}


RECIPES: Registry[Path] = Registry("recipe", _shipped("recipes"))
"""the files of all recipes by name: kdzoo's own and a user's"""
