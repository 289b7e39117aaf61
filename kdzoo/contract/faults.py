"""What a user's loss, build() or class gives that is no loss, no module, no method: in words, with what to write instead."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from kdzoo.errors import KdzooError
from kdzoo.text import first_line


class MethodFault(KdzooError):
    """A user's method does not do what the contract asks; the message says what to write instead."""


def fault_of_loss(value: object) -> str:
    """What is wrong with what a loss returned, and what to write instead; empty for a scalar tensor."""
    if value is None:
        return "the loss returns None, expected a scalar tensor: is a `return` missing?"
    if isinstance(value, float | int):
        return f"the loss returns a {type(value).__name__}, which carries no gradient: return the tensor, without .item() or float()"
    if isinstance(value, tuple | list | dict):
        return f"the loss returns a {type(value).__name__}, expected one scalar tensor: add its parts up, for example return a + b"
    from torch import Tensor

    if not isinstance(value, Tensor):
        return f"the loss returns {type(value).__module__}.{type(value).__name__}, expected a scalar tensor of torch"
    if value.shape != ():
        each = ", one value per sample" if value.ndim == 1 and len(value) > 1 else ""
        return f"the loss has the shape {tuple(value.shape)}{each}, expected a scalar: reduce it, for example with .mean()"
    if not value.is_floating_point():
        return (
            f"the loss is {value.dtype}, expected float32: comparing, counting and argmax carry no gradient, so compute with the "
            "class scores themselves"
        )
    return ""


def fault_of_module(value: object) -> str:
    """What is wrong with what build() returned; empty for an nn.Module."""
    from torch import nn

    if isinstance(value, nn.Module):
        return ""
    if isinstance(value, tuple | list):
        return f"build() returns a {type(value).__name__}, expected an nn.Module: nn.ModuleList([...]) holds several"
    if isinstance(value, dict):
        return "build() returns a dict, expected an nn.Module: nn.ModuleDict({...}) holds several"
    missing = ": is a `return` missing?" if value is None else ""
    return f"build() returns {'None' if value is None else type(value).__name__}, expected an nn.Module{missing}"


def layers_outside_build(cls: type, instance: object) -> list[str]:
    """Layers with weights that a method uses and that no build() made, in words: nobody trains, moves or checkpoints them."""
    own = {name: value for name, value in vars(cls).items() if _learns(value)}
    own |= {name: value for name, value in (getattr(instance, "__pydantic_private__", None) or {}).items() if _learns(value)}
    layers = [f"the class attribute {name} ({_kind(value)})" for name, value in own.items()]
    return layers + [
        f"{name} at module level ({_kind(value)})" for name, value in _layers_of(vars(cls).get("loss") or getattr(cls, "loss", None), set())
    ]


def _layers_of(function: Any, visits: set[int]) -> Iterator[tuple[str, Any]]:
    """Layers among the globals and the closure of a function, and of the functions of the same file that it calls."""
    code = getattr(function, "__code__", None)
    if code is None or id(code) in visits:
        return
    visits.add(id(code))
    names = set(code.co_names).union(*(inner.co_names for inner in code.co_consts if inspect.iscode(inner)))
    candidates = [(name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            candidates.append((name, cell.cell_contents))
        except ValueError:  # a name that is bound later
            continue
    for name, value in candidates:
        if _learns(value):
            yield name, value
        elif inspect.isfunction(value) and (value.__module__ or "").partition(".")[0] not in ("torch", "kdzoo", "numpy"):
            yield from _layers_of(value, visits)


def _learns(value: object) -> bool:
    from torch import nn

    if isinstance(value, nn.Parameter):
        return value.requires_grad
    return isinstance(value, nn.Module) and any(parameter.requires_grad for parameter in value.parameters())


def _kind(value: object) -> str:
    return f"nn.{type(value).__name__}" if type(value).__module__.startswith("torch") else type(value).__name__


BUILD = "build them in build(): write a kdzoo.Method whose build(self, student, teacher, data) returns them; loss() gets them as `module`"
"""what to do with layers made elsewhere"""


def of_class_body(error: BaseException) -> str:
    """Advice for a Method class whose body pydantic refuses: a layer or an attribute without a type; empty for other errors."""
    text = str(error)
    if match := re.search(r"non-annotated attribute was detected: `(\w+) = (.*?)`", text, re.DOTALL):
        name, value = match.groups()
        if re.match(r"(\w+\.)*[A-Z]\w*\(", value):
            return f"{name} = {first_line(value)} is a class attribute. Layers: {BUILD}"
        return f"{name} = {first_line(value)} has no type: a hyper-parameter is declared as {name}: float = {first_line(value)}"
    if type(error).__name__ == "PydanticSchemaGenerationError":
        return f"a field of a Method is a hyper-parameter (a number, a text, a bool or a list of them), not a layer. Layers: {BUILD}"
    return ""
