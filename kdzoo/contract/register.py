"""@register: a Method class, or a plain function, becomes a method of the zoo under a name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import create_model

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Card, Coefficients, Family, MapsRead, PretrainStage, Setting, Source, StagesRead, default_search
from kdzoo.contract.code_version import version_of
from kdzoo.contract.infer import infer_needs
from kdzoo.contract.method import Method
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Needs, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import plugin_being_loaded
from kdzoo.contract.registry import definition_of
from kdzoo.contract.signature import refuse_definition, refuse_needs, refuse_signatures
from kdzoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

AnyDefinition = TypeVar("AnyDefinition", bound=Any)


def register(
    name: str,
    *,
    needs: Need | Pass | NetworkNeeds | Needs | None = None,
    scale: float = 1.0,
    published: Coefficients | None = None,
    source: Source | None = None,
    formula: str = "",
    search: tuple[Setting, ...] | None = None,
    version: str | int | None = None,
    zero_at_match: bool = False,
    family: Family = "own",
    disagreements: tuple[str, ...] = (),
    deploys: str = "",
    pretrain: PretrainStage | None = None,
    refuses_mixing: str = "",
    pixels: str = "",
    detaches: str = "",
    per_sample: bool = False,
    stages: StagesRead | Callable[[Any], StagesRead] = "paired",
    maps: MapsRead = "grids",
) -> Callable[[AnyDefinition], AnyDefinition]:
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
    deploys: what is shipped where that is not the student that was trained; `deploy` then gives its logits.
    pretrain: the stage of training that comes before, as a run of its own.
    refuses_mixing: why it cannot learn from mixed images; recipes with mixup or CutMix are then refused.
    pixels: why it works on images in 0..255 alone; `kdzoo.Distiller`, whose inputs are normalised already, then refuses it.
    detaches: what of the student it detaches on purpose, so that its gradient is not that of its value.
    per_sample: whether the loss is the mean over the batch of what each sample gives alone, without random draws, batch norm or
    memories. Where several processes train one student, each then computes it of its own samples; any other loss is computed of
    their joint batch, which is gathered, so that it is what one process would compute, and memories stay the same in all.
    stages: which maps `build` and `loss` are handed: `paired` one to one, each network's own `last`, or all of each
    network's `own`; a function of the method where that depends on a hyper-parameter.
    maps: over what they may lie: the `grids` of images, the `sequences` of texts, or `any`; other networks are refused before training.
    Raises InputError for a definition that cannot be called as a method is, and where another one has the name already.
    """

    argument: object = name
    if not isinstance(argument, str):  # the function itself, under @register without parentheses
        own = getattr(argument, "__name__", "my_loss")
        raise InputError(f"register: expected the method's name, got {own} itself: write @kdzoo.register({own!r}) with parentheses")
    refuse_needs(name, needs)

    def decorate(definition: AnyDefinition) -> AnyDefinition:
        refuse_definition(name, definition)
        cls = cast(type[Method], definition) if inspect.isclass(definition) else _method_of(name, definition)
        refuse_signatures(name, cls, definition)
        site = definition_of(definition)
        declaration = Needs.of(needs) if needs is not None else infer_needs(name, cls, definition)
        cls.card = Card(
            name=name,
            needs=declaration,
            scale=scale,
            published=published or Coefficients(1.0, scale),
            source=source,
            formula=formula,
            search=search or (),
            version=str(version) if version is not None else _version(definition),
            zero_at_match=zero_at_match,
            origin=site.place,
            summary=(inspect.getdoc(definition) or "").partition("\n")[0],
            family=family,
            disagreements=disagreements,
            deploys=deploys,
            pretrain=pretrain,
            refuses_mixing=refuses_mixing,
            pixels=pixels,
            detaches=detaches,
            per_sample=per_sample,
            plugin=plugin_being_loaded(),
            outside=definition.__module__.partition(".")[0] != "kdzoo",
            stages=stages,
            maps=maps,
            definition=(site.file, site.name),
        )
        if search is None:
            cls.card = replace(cls.card, search=default_search(cls.card))
        REGISTRY.register(cls)
        return definition

    return decorate


def _method_of(name: str, function: Callable[..., Tensor]) -> type[Method]:
    """A Method whose fields are the keyword-only parameters of a plain function."""
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    positional = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(positional) != 3 or any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in positional):
        function_name = function.__name__ if function.__name__.isidentifier() else name
        signature, got = f"{function_name}(student, teacher, batch, *, hyperparameters...)", [str(p) for p in positional]
        raise InputError(
            f"method {name!r} at {definition_of(function).place}: expected {signature}, got the parameters {got}"
            f"{_hint(function_name, positional)}"
        )
    fields: dict[str, Any] = {
        p.name: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }

    class FunctionMethod(Method):
        def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
            return function(student.at_least_float32(), teacher.at_least_float32(), batch, **{key: getattr(self, key) for key in fields})

    FunctionMethod.__doc__ = function.__doc__
    return cast(type[Method], create_model(function.__name__, __base__=FunctionMethod, __module__=function.__module__, **fields))


def _hint(function_name: str, positional: Sequence[inspect.Parameter]) -> str:
    """What to write instead of these positional parameters."""
    names = [p.name for p in positional]
    if names[:1] in (["self"], ["cls"]):
        return ": register a function that stands outside of a class, or a whole class that inherits kdzoo.Method"
    if swallowing := [str(p) for p in positional if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]:
        return f": leave out {' and '.join(swallowing)}; every hyper-parameter has a name of its own, behind `*`"
    if len(positional) > 3:
        extra = ", ".join(str(p) for p in positional[3:])
        return f": put `*` before what is a hyper-parameter: {function_name}({', '.join(names[:3])}, *, {extra})"
    return ": all three are passed, whether it reads them or not"


def _version(definition: Any) -> str:
    """`1` for kdzoo's own; else a hash of what its file and the helpers beside it say (`plugins.version_of`)."""
    return "1" if definition.__module__.startswith("kdzoo.") else version_of(definition)
