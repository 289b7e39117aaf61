"""The plugin contract on one page: Method, @register, Source, and the registry of all methods.

A method is a pure loss with a declaration. The class is a frozen pydantic model, so its fields are at once the
constructor, the schema, the sweep axes and part of a run's id; what `@register` declares lives in `Method.card`.
Free of torch until a method's code is loaded; `Registry.declarations` serves those who only read what is declared.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from kdzoo.contract.diagnosis import BUILD, advice_for, diagnose, shown
from kdzoo.contract.outputs import Batch, DataFacts, Need, Needs, Outputs, Progress, Shapes, StageShape
from kdzoo.contract.plugins import is_its_own, of_nobody, origin, version_of
from kdzoo.contract.plugins import load_plugin as load_plugin
from kdzoo.contract.plugins import load_plugins as load_plugins
from kdzoo.contract.plugins import normalised_syntax as normalised_syntax
from kdzoo.errors import InputError, did_you_mean, problems_of, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

Registered = TypeVar("Registered", bound=Any)


@dataclass(frozen=True)
class Source:
    """Where a method comes from, and whose weights it declares."""

    title: str
    year: int
    url: str
    equation: str = ""
    weights: str = ""


@dataclass(frozen=True)
class Coefficients:
    """The factors on the task loss and on the method's own loss, as published."""

    task: float
    term: float


@dataclass(frozen=True)
class Setting:
    """One point of a method's search list: hyper-parameters, a factor on its weight, an alpha, or a dose.

    dose: the size of the term's gradient beside that of cross-entropy, which sets the weight (`kdzoo.training.doses`): the sum is
    then CE + weight * D, whatever coefficients were published.
    """

    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    alpha: float | None = None
    dose: float | None = None


def in_doses(*order: float, **hyperparameters: Any) -> tuple[Setting, ...]:
    """A search list: the published coefficients first, then these doses in their order."""
    return (Setting(hyperparameters), *(Setting(hyperparameters, dose=dose) for dose in order))


class LossWithAux(NamedTuple):
    """A method's loss, which alpha and weights multiply, and what is added as it is (a peer's own cross-entropy)."""

    loss: Tensor
    auxiliary: Tensor


@dataclass(frozen=True)
class ParamGroup:
    """Parameters of a method's module that are optimised in their own way.

    lr: a factor on the recipe's rate. weight_decay: None for the recipe's.
    """

    parameters: Sequence[nn.Parameter]
    lr: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class PretrainStage:
    """A stage of training before the student's own, as a run of its own: a method's loss alone, without cross-entropy.

    method: whose loss it is. share: its epochs as a share of the recipe's, which the second stage has besides.
    followed_by: the methods whose published terms the second stage adds to cross-entropy, where they are not the one that
    declares this. The second stage starts from the first's student, where `method` reads the student, and takes over
    what its own module has under the same name.
    """

    method: str
    share: float
    followed_by: tuple[str, ...] | None = None

    def epochs(self, of_recipe: int) -> int:
        return max(1, round(self.share * of_recipe))


Family = Literal["logits", "features", "relations", "gradients", "online", "self", "own"]
"""what a method looks at: class scores, maps, relations of samples, gradients, other learners, itself; `own` is a user's"""
FAMILIES: tuple[Family, ...] = get_args(Family)

StagesRead = Literal["paired", "last", "own"]
"""which maps a method is handed: the two networks' stages one to one; each network's own last one; all of each network's own"""

WEIGHTS_WORTH_TRYING = (1.0, 0.3, 3.0, 0.1, 10.0)
"""factors on the published weight, for what has no dose"""

LOW_FIRST = (0.1, 0.3, 0.03, 1.0, 3.0)
HIGH_FIRST = (1.0, 0.3, 3.0, 0.1, 0.03)
DOSES_WORTH_TRYING: Mapping[Family, tuple[float, ...]] = {
    **dict.fromkeys(FAMILIES, HIGH_FIRST),
    "features": LOW_FIRST,
    "gradients": LOW_FIRST,
    "relations": LOW_FIRST,
}
"""in which order a method that declares none tries doses: what matches maps or relations is best small beside cross-entropy"""


@dataclass(frozen=True)
class Card:
    """All that `@register` declares of a method."""

    name: str
    needs: Needs
    scale: float
    published: Coefficients
    source: Source | None
    formula: str
    search: tuple[Setting, ...]
    version: str
    zero_at_match: bool
    origin: str
    summary: str
    family: Family
    disagreements: tuple[str, ...]
    """how implementations differ from the paper and from each other, one sentence each"""
    ships: str
    """what is shipped where that is not the student that was trained, in words"""
    pretrain: PretrainStage | None
    unmixed: str
    """why it cannot learn from mixed images (mixup, CutMix), in words; empty where it can"""
    held: str
    """what of the student it detaches on purpose, in words; empty where its gradient is that of its value"""
    outside: bool
    """whether it is a user's or another package's: what it shares with others is then lent to it in copies"""
    plugin: str
    """the plugin file that was being loaded when it was registered; empty for none"""
    definition: tuple[str, str]
    """(file, qualified name): two registrations with the same definition are the same method, defined again"""
    stages: StagesRead | Callable[[Any], StagesRead] = "paired"
    """which maps it is handed, or a function of the method that says so, where that hangs on a hyper-parameter"""

    @property
    def trains_classifier(self) -> bool:
        """Whether the loss reaches the classifier that is shipped, so that alpha = 1 makes sense."""
        return bool(self.ships) or Need.LOGITS in self.needs.student or Need.NETWORK in self.needs.student

    @property
    def no_dose(self) -> str:
        """Why no dose can set its weight, in words; empty where one can."""
        if self.pretrain is not None and self.pretrain.followed_by == ():
            return "its second stage is cross-entropy alone, so there is no weight to set"
        if self.published.task == 0:
            return "it is published without cross-entropy beside it, so there is nothing to compare its gradient with"
        if self.needs.student == Need.NOTHING:
            return "it reads nothing of the student, so its gradient there is zero"
        return ""


class Method(BaseModel):
    """A distillation loss with its hyper-parameters. Subclass it, declare fields, write `loss`, and `@register` it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)
    card: ClassVar[Card]

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        """Make what learns or remembers (regressors, memory banks); nothing unless overridden.

        `student.stages` and `teacher.stages` are those that `loss` is handed: paired one to one unless the method is
        registered with other `stages`. The module is moved, optimised and checkpointed with the run and never enters the
        student's weights.
        Raises InputError when the two networks cannot be adapted to each other.
        """
        from torch import nn

        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor | LossWithAux:
        """The loss before its weight: a scalar, float32 or wider, reduced over the batch."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def groups(self, module: nn.Module) -> list[ParamGroup]:
        """How the module's parameters are optimised: with the student's, unless overridden."""
        return [ParamGroup([parameter for parameter in module.parameters() if parameter.requires_grad])]

    def deploy(self, student: Outputs, module: nn.Module) -> Tensor:
        """The logits (B, K) of what is shipped, for a method registered with `ships`; `student` holds what it needs."""
        raise NotImplementedError(f"{type(self).__name__} ships the student as it was trained")

    def ramp(self, clock: Progress) -> float:
        """A factor on the weight in the course of training; 1 unless overridden."""
        return 1.0


def register(
    name: str,
    *,
    needs: Need | Needs | None = None,
    scale: float = 1.0,
    published: Coefficients | None = None,
    source: Source | None = None,
    formula: str = "",
    search: tuple[Setting, ...] | None = None,
    version: str | int | None = None,
    zero_at_match: bool = False,
    family: Family = "own",
    disagreements: tuple[str, ...] = (),
    ships: str = "",
    pretrain: PretrainStage | None = None,
    unmixed: str = "",
    held: str = "",
    stages: StagesRead | Callable[[Any], StagesRead] = "paired",
) -> Callable[[Registered], Registered]:
    """Register a Method, or a function `(student, teacher, batch, *, hyperparameters...) -> Tensor`, under a name.

    A function gets the networks' outputs in float32 at least; its keyword-only parameters are the hyper-parameters.
    needs: what is read of student and teacher; where it is left out, a trial call on small random outputs finds it.
    scale: the factor on the loss when alpha weighs it: L = (1 - alpha) CE + alpha scale D.
    published: the factors used when no alpha is given; by default CE + scale D.
    formula: the loss as text, with `{field}` where a hyper-parameter stands.
    search: the settings worth trying, the declared one first. The default: the published coefficients, then the doses 0.03,
    0.1, 0.3, 1 and 3 in the order of the family; its weight times 1, 0.3, 3, 0.1, 10 where no dose can set it.
    version: raised when the numbers change; by default a hash of the syntax tree for code outside kdzoo.
    zero_at_match: the loss is zero where the student's outputs equal the teacher's.
    ships: what is shipped where that is not the student that was trained; `deploy` then gives its logits.
    pretrain: the stage of training that comes before, as a run of its own.
    unmixed: why it cannot learn from mixed images; recipes with mixup or CutMix are then refused.
    held: what of the student it detaches on purpose, so that its gradient is not that of its value.
    stages: which maps `build` and `loss` are handed: `paired` one to one, each network's own `last`, or all of each
    network's `own`; a function of the method where that depends on a hyper-parameter.
    Raises InputError for a definition that cannot be called as a method is, and where another one has the name already.
    """

    given: object = name
    if not isinstance(given, str):  # the function itself, under @register without parentheses
        own = getattr(given, "__name__", "my_loss")
        raise InputError(f"register: expected the method's name, got {own} itself: write @kdzoo.register({own!r}) with parentheses")
    _refuse_needs(name, needs)

    def decorate(definition: Registered) -> Registered:
        _refuse_definition(name, definition)
        cls = cast(type[Method], definition) if inspect.isclass(definition) else _method_of(name, definition)
        _refuse_signatures(name, cls, definition)
        asked = Needs.of(needs) if needs is not None else _probed_needs(name, cls, definition)
        cls.card = Card(
            name=name,
            needs=asked,
            scale=scale,
            published=published or Coefficients(1.0, scale),
            source=source,
            formula=formula,
            search=search or (),
            version=str(version) if version is not None else _version(definition),
            zero_at_match=zero_at_match,
            origin=_origin(definition),
            summary=(inspect.getdoc(definition) or "").partition("\n")[0],
            family=family,
            disagreements=disagreements,
            ships=ships,
            pretrain=pretrain,
            unmixed=unmixed,
            held=held,
            plugin=origin(),
            outside=definition.__module__.partition(".")[0] != "kdzoo",
            stages=stages,
            definition=(inspect.getsourcefile(definition) or definition.__module__, definition.__qualname__),
        )
        if search is None:
            cls.card = replace(cls.card, search=default_search(cls.card))
        REGISTRY.add(cls)
        return definition

    return decorate


def default_search(card: Card) -> tuple[Setting, ...]:
    """The search list of a method that declares none."""
    if card.pretrain is not None and card.pretrain.followed_by == ():
        return (Setting(),)
    if card.no_dose:
        return tuple(Setting(weight=weight) for weight in WEIGHTS_WORTH_TRYING)
    return in_doses(*DOSES_WORTH_TRYING[card.family])


def stages_read(method: Method) -> StagesRead:
    """Which maps a method is handed."""
    stages = method.card.stages
    return stages if isinstance(stages, str) else stages(method)


def stages_handed(method: Method, pairs: Sequence[tuple[int, int]]) -> tuple[Sequence[int] | None, Sequence[int] | None]:
    """Which stages of student and teacher a method is handed, by index, where two networks' stages pair so; None for all."""
    match stages_read(method):
        case "last":
            return [-1], [-1]
        case "own":
            return None, None
        case "paired":
            return [student for student, _ in pairs], [teacher for _, teacher in pairs]


class Registry:
    """Every method by name. Those of kdzoo and of installed packages are loaded when the first name is asked for."""

    def __init__(self) -> None:
        self._methods: dict[str, type[Method]] = {}
        self._loaded = False
        self._by_catalogue = False
        self.broken: dict[str, str] = {}
        """entry points that failed to load, with the reason"""

    def add(self, cls: type[Method]) -> None:
        """Add a method; the same definition again replaces the first, another one under its name is refused."""
        name, there = cls.card.name, self._methods.get(cls.card.name)
        if there is not None and not _same_definition(there.card, cls.card):
            raise InputError(f"method {name!r} is defined twice: at {there.card.origin} and at {cls.card.origin}; choose another name")
        if not name.isidentifier() or name in ("none", "ce"):
            near = re.sub(r"\W", "_", name)
            instead = f", for example {near!r}" if near.isidentifier() and near != name else ""
            raise InputError(
                f"method name {name!r} at {cls.card.origin}: expected letters, digits and underscores, no digit first, and neither 'none' "
                f"nor 'ce'{instead}"
            )
        self._methods[name] = cls

    @contextmanager
    def declarations(self) -> Iterator[None]:
        """A block in which methods may be read but not run: kdzoo's own then come from the catalogue, without torch.

        Where their code is loaded, a plugin has registered some, or other packages offer some, the code is read as ever.
        """
        self._by_catalogue = True
        try:
            yield
        finally:
            self._by_catalogue = False

    def names(self) -> list[str]:
        return sorted(self._known())

    def own_names(self) -> list[str]:
        """The names of kdzoo's own methods, without those of plugins and installed packages."""
        return [name for name in self.names() if self.get(name).__module__.startswith("kdzoo.")]

    def get(self, name: str) -> type[Method]:
        """The method class called `name`; raises InputError with the nearest name."""
        known = self._known()
        if name not in known:
            raise InputError(unknown("methods", name, known))
        return known[name]

    def _known(self) -> Mapping[str, type[Method]]:
        if self._by_catalogue and not self._loaded and not self._methods and not importlib.metadata.entry_points(group="kdzoo.methods"):
            from kdzoo.contract.catalogue import declared

            return declared()
        self._load()
        return self._methods

    def create(self, name: str, hyperparameters: Mapping[str, Any]) -> Method:
        """The method with these hyper-parameters; raises InputError with every fault of theirs."""
        return instance_of(self.get(name), hyperparameters)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        from kdzoo.contract.guard import watched  # here, since it brings torch

        package = importlib.import_module("kdzoo.methods")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"kdzoo.methods.{module.name}")
        for entry in importlib.metadata.entry_points(group="kdzoo.methods"):
            try:
                with of_nobody(), watched(f"the installed plugin {entry.name}"):
                    entry.load()
            except (Exception, KeyboardInterrupt) as error:  # a broken plugin never breaks the zoo; the command line reports it
                if not is_its_own(error):
                    raise
                self.broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"


REGISTRY = Registry()


def instance_of(cls: type[Method], hyperparameters: Mapping[str, Any]) -> Method:
    """A method of a registered class; raises InputError with every fault of the hyper-parameters, or of an `__init__` of its own."""
    try:
        return cls(**hyperparameters)
    except ValidationError as error:
        frozen = [fault for fault in error.errors() if fault["type"] == "frozen_instance"]
        if frozen:
            raise InputError(_init_of_its_own(cls, str(frozen[0]["loc"][0]), frozen[0]["input"])) from None
        raise InputError(*problems_of(error, cls.card.name, cls.model_fields)) from None
    except Exception as error:
        if "__init__" not in vars(cls):
            raise
        raise InputError(
            f"method {cls.card.name!r} at {cls.card.origin}: its __init__ fails: {diagnose(error, cls.card.definition[0])}"
        ) from error


def _init_of_its_own(cls: type[Method], attribute: str, value: Any) -> str:
    """What to write instead of an `__init__` that sets an attribute."""
    where = f"method {cls.card.name!r} at {cls.card.origin}: its __init__ sets self.{attribute}, which a Method does not keep"
    from torch import Tensor, nn

    if isinstance(value, nn.Module | Tensor):
        return f"{where}. Layers: {BUILD}"
    return f"{where}. Hyper-parameters are fields of the class, without an __init__: {attribute}: {type(value).__name__} = {value!r}"


def create_method(name: str, **hyperparameters: Any) -> Method:
    """A method by its registered name: `create_method("hinton", temperature=2.0)`."""
    return REGISTRY.create(name, hyperparameters)


def _method_of(name: str, function: Callable[..., Tensor]) -> type[Method]:
    """A Method whose fields are the keyword-only parameters of a plain function."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(positional) != 3 or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in positional):
        called = function.__name__ if function.__name__.isidentifier() else name
        wanted, got = f"{called}(student, teacher, batch, *, hyperparameters...)", [str(p) for p in positional]
        raise InputError(f"method {name!r} at {_origin(function)}: expected {wanted}, got the parameters {got}{_hint(called, positional)}")
    fields: dict[str, Any] = {
        p.name: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }

    class FunctionMethod(Method):
        def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
            return function(student.wide(), teacher.wide(), batch, **{key: getattr(self, key) for key in fields})

    FunctionMethod.__doc__ = function.__doc__
    return cast(type[Method], create_model(function.__name__, __base__=FunctionMethod, __module__=function.__module__, **fields))


def _hint(called: str, positional: Sequence[inspect.Parameter]) -> str:
    """What to write instead of these positional parameters."""
    names = [p.name for p in positional]
    if names[:1] in (["self"], ["cls"]):
        return ": register a function that stands outside of a class, or a whole class that inherits kdzoo.Method"
    if swallowing := [str(p) for p in positional if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]:
        return f": leave out {' and '.join(swallowing)}; every hyper-parameter has a name of its own, behind `*`"
    if len(positional) > 3:
        extra = ", ".join(str(p) for p in positional[3:])
        return f": put `*` before what is a hyper-parameter: {called}({', '.join(names[:3])}, *, {extra})"
    return ": all three are passed, whether it reads them or not"


def _refuse_needs(name: str, needs: object) -> None:
    """Raises InputError for `needs` that are not a Need."""
    if needs is None or isinstance(needs, Need | Needs):
        return
    words = [needs] if isinstance(needs, str) else list(needs) if isinstance(needs, list | tuple | set) else []
    members = [str(word.name if isinstance(word, Need) else word).rpartition(".")[2].upper() for word in words]
    known = [member for member in members if member in Need.__members__]
    instead = " | ".join(f"kdzoo.Need.{member}" for member in known) or "kdzoo.Need.LOGITS | kdzoo.Need.STAGES"
    near = did_you_mean(members[0], Need.__members__) if members and not known else ""
    raise InputError(f"register({name!r}): needs: expected {'' if known else 'for example '}needs={instead}, got {needs!r}{near}")


def _refuse_definition(name: str, definition: Any) -> None:
    """Raises InputError for what is neither a Method class with a loss nor a function."""
    loss = definition if inspect.isfunction(definition) else getattr(definition, "loss", None)
    if inspect.iscoroutinefunction(loss) or inspect.isgeneratorfunction(loss):
        instead = "write `return`, not `yield`" if inspect.isgeneratorfunction(loss) else "write `def`, not `async def`"
        raise InputError(f"register({name!r}) at {_origin(definition)}: the loss has to return a scalar tensor: {instead}")
    if inspect.isfunction(definition):
        return
    if not inspect.isclass(definition):
        raise InputError(f"register({name!r}): expected a kdzoo.Method class or a function, got {definition!r}")
    where = f"register({name!r}) at {_origin(definition)}"
    if not issubclass(definition, Method):
        from torch import nn

        module = "; an nn.Module is what its build() returns, and loss() gets it as `module`" if issubclass(definition, nn.Module) else ""
        raise InputError(
            f"{where}: expected a kdzoo.Method class or a function, got the class {definition.__name__}: write "
            f"class {definition.__name__}(kdzoo.Method) with loss(self, student, teacher, batch, module){module}"
        )
    if definition.loss is Method.loss:
        others = [given for given in ("forward", "__call__") if given in vars(definition)]
        instead = f"; rename its {others[0]}()" if others else ""
        raise InputError(f"{where}: {definition.__name__} has no loss(self, student, teacher, batch, module){instead}")


def _refuse_signatures(name: str, cls: type[Method], definition: Any) -> None:
    """Raises InputError, with all of them, for methods of a class that cannot be called as the contract calls them."""
    problems = []
    for act in ("loss", "build", "groups", "deploy", "ramp"):
        theirs, ours = getattr(cls, act), getattr(Method, act)
        if theirs is ours:
            continue
        wanted = list(inspect.signature(ours).parameters)
        try:
            inspect.signature(theirs).bind(*wanted)
        except TypeError:
            got = ", ".join(map(str, inspect.signature(theirs).parameters.values()))
            line = f"{_origin(theirs)}: expected {act}({', '.join(wanted)}), got {act}({got})"
            problems.append(f"method {name!r} at {line}")
    if problems:
        raise InputError(*problems)


def _probed_needs(name: str, cls: type[Method], definition: Any) -> Needs:
    """What a function reads, found by calling it on small random outputs that record every reading."""
    import torch
    from torch import nn

    read: dict[str, Need] = {"student": Need.NOTHING, "teacher": Need.NOTHING, "batch": Need.NOTHING}

    def recorder(owner: str) -> Callable[[Need], None]:
        def record(need: Need) -> None:
            read[owner] |= need

        return record

    random = torch.Generator().manual_seed(0)

    def outputs(owner: str) -> Outputs:
        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        values = {
            Need.LOGITS: draw(4, 5),
            Need.EMBEDDING: draw(4, 6),
            Need.STAGES: [draw(4, 3, 8, 8), draw(4, 4, 4, 4), draw(4, 6, 2, 2)],
            Need.PREACT: [draw(4, 3, 8, 8), draw(4, 4, 4, 4), draw(4, 6, 2, 2)],
            Need.CLASSIFIER: nn.Linear(6, 5),
        }
        return Outputs(values, owner=owner, on_read=recorder(owner))

    maps = (StageShape(3, 8, 8, 1), StageShape(4, 4, 4, 2), StageShape(6, 2, 2, 4))
    shapes = Shapes(5, 6, maps, classifier=nn.Linear(6, 5).requires_grad_(False))
    file = inspect.getsourcefile(definition) or ""
    batch = Batch(
        inputs=torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
        targets=torch.tensor([0, 1, 2, 3]),
        index=torch.arange(4),
        clock=Progress(0, 1, 0, 1),
        generator=random,
        on_read=recorder("batch"),
    )
    place = f"method {name!r} at {shown(_origin(definition))}"
    needs = f"@kdzoo.register({name!r}, needs=kdzoo.Need.LOGITS | ...)"
    if required := [key for key, field in cls.model_fields.items() if field.is_required()]:
        raise InputError(f"{place}: give {' and '.join(required)} a default, or declare what it reads: {needs}")
    try:
        method = cls()
    except ValidationError as error:
        if any(fault["type"] == "frozen_instance" for fault in error.errors()):
            return Needs(Need.NOTHING, Need.NOTHING)  # an __init__ that sets something: `instance_of` says so when it is used
        raise InputError(*(f"{place}: the default of {problem}" for problem in problems_of(error, "", cls.model_fields))) from error
    try:
        method.loss(outputs("student"), outputs("teacher"), batch, method.build(shapes, shapes, DataFacts(4, 5, torch.arange(4))))
    except Exception as error:
        if isinstance(error, AttributeError | NameError) or advice_for(error):  # to declare needs would not help
            raise InputError(f"method {name!r}: {diagnose(error, file)}") from error
        words = f"the trial call that finds what it reads fails: {diagnose(error, file)}"
        raise InputError(f"{place}: {words}; or declare what it reads: {needs}") from error
    return Needs(read["student"] | read["batch"], read["teacher"])


def _same_definition(there: Card, here: Card) -> bool:
    """Whether one is the other loaded again: the same place, or the same name in another notebook cell."""
    from_cells = all("<" in card.definition[0] or "ipykernel" in card.definition[0] for card in (there, here))
    return there.definition == here.definition or (from_cells and there.definition[1] == here.definition[1])


def _origin(definition: Any) -> str:
    try:
        return f"{inspect.getsourcefile(definition)}:{inspect.getsourcelines(definition)[1]}"
    except (OSError, TypeError):
        return f"{definition.__module__}.{definition.__qualname__}"


def _version(definition: Any) -> str:
    """`1` for kdzoo's own; else a hash of what its file and the helpers beside it say (`plugins.version_of`)."""
    return "1" if definition.__module__.startswith("kdzoo.") else version_of(definition)
