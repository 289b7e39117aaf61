"""What is wrong with a user's loss, in words: the line that failed, what was wrong there, and what to write instead."""

from __future__ import annotations

import builtins
import importlib.metadata
import inspect
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from kdzoo.contract.needs import Need, Pass
from kdzoo.contract.shapes import Shapes
from kdzoo.errors import KdzooError, did_you_mean
from kdzoo.text import first_line


class MethodFault(KdzooError):
    """A user's method does not do what the contract asks; the message says what to write instead."""


@dataclass(frozen=True)
class Networks:
    """The two networks that a loss failed on, and what it reads of them: so a width mismatch can be named."""

    student: Shapes
    teacher: Shapes
    reads: Need


def diagnose(error: BaseException, file: str, networks: Networks | None = None) -> str:
    """`my_loss.py:9: RuntimeError: ...: what to write instead`, for an error of the code in `file` or of the files beside it."""
    place = place_of(error, file)
    return f"{f'{place}: ' if place else ''}{in_words(error, networks)}"


def in_words(error: BaseException, networks: Networks | None = None) -> str:
    """An error and the advice that fits it, without its place."""
    if isinstance(error, KdzooError):
        return str(error)
    if isinstance(error, AttributeError) and error.obj is Need:  # whose own message is the name alone
        if str(error.name) in Pass.__members__:
            return f"kdzoo.Need has no {error.name}; it is a pass: write kdzoo.Pass.{error.name}"
        known = [name for name in Need.__members__ if name != "NOTHING"]
        return f"kdzoo.Need has no {error.name}{did_you_mean(str(error.name), known)} It has: {', '.join(known)}"
    text, advice = first_line(str(error)).rstrip(".,"), advice_for(error, networks)
    return f"{type(error).__name__}{f': {text}' if text else ''}{_suggestion(error)}{f'. {advice}' if advice else ''}"


def advice_for(error: BaseException, networks: Networks | None = None) -> str:
    """What to write instead, where that can be told from an error; empty elsewhere."""
    text = str(error)
    rules = (_width(text, networks), _batch_size(text), _half(text), _device(text), _outputs(error), _in_place(text), _numpy(text))
    return next(filter(None, rules), "")


def place_of(error: BaseException, file: str) -> str:
    """`my_loss.py:9`, the last line of the user's own code on the way to an error; empty where there is none."""
    frame = _last_frame(error.__traceback__, Path(file).parent if os.path.isabs(file) else None, file)
    return "" if frame is None else f"{shown(frame[0].f_code.co_filename)}:{frame[1]}"


def _last_frame(trace: TracebackType | None, folder: Path | None, file: str) -> tuple[FrameType, int] | None:
    found = None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == file or (folder is not None and Path(name).parent == folder):
            found = (trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return found


def shown(path: str) -> str:
    """A path as a user would type it: from the working folder where it lies below that."""
    try:
        relative = os.path.relpath(path)
    except (ValueError, OSError):  # another drive, or a working folder that is gone
        return path
    return path if relative.startswith("..") or not os.path.isabs(path) else relative


def _suggestion(error: BaseException) -> str:
    """The nearest name for one that does not exist."""
    match error:
        case ModuleNotFoundError(name=str(name)):
            known = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
            near = did_you_mean(name.partition(".")[0], known)
            return near or f"; install it into this environment ({sys.prefix}), or remove the import"
        case NameError(name=str(name)):
            return did_you_mean(name, _names_in_reach(error.__traceback__))
        case AttributeError(name=str(name)) if "did you mean" not in str(error) and not str(error).startswith(
            ("student", "teacher", "batch")
        ):
            return _nearest_attribute(error.obj, name)
        case TypeError() if found := re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error)):
            return did_you_mean(found[2], _parameters_of(found[1], error.__traceback__))
    return ""


def _parameters_of(function: str, trace: TracebackType | None) -> list[str]:
    """The parameters of the function of this name that the failing line could call, in its module or in one that it imports."""
    frame = _innermost(trace)
    values = [] if frame is None else [*frame.f_globals.values()]
    modules = [value for value in values if inspect.ismodule(value)]
    called = [value for value in (*values, *(vars(module).get(function) for module in modules)) if inspect.isfunction(value)]
    return [name for value in called if value.__name__ == function for name in inspect.signature(value).parameters]


def _innermost(trace: TracebackType | None) -> FrameType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else trace.tb_frame


def _nearest_attribute(owner: Any, name: str) -> str:
    names = [known for known in dir(owner) if not known.startswith("_")]
    return did_you_mean(name, names)


def _names_in_reach(trace: TracebackType | None) -> set[str]:
    frame = _innermost(trace)
    return set() if frame is None else {*frame.f_locals, *frame.f_globals, *dir(builtins)}


_SIZES = (
    re.compile(r"size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\)"),
    re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(?P<a>\d+) and (?P<b>\d+)x\d+\)"),
    re.compile(r"to have (?P<b>\d+) channels, but got (?P<a>\d+) channels"),
    re.compile(r"running_mean should contain (?P<a>\d+) elements not (?P<b>\d+)"),
)
_LAYER = re.compile(r"mat1 and mat2|to have \d+ channels|running_mean should contain")


def _width(text: str, networks: Networks | None) -> str:
    """Which widths of student and teacher differ where two sizes do not fit, and the projector between them."""
    sizes = next((found for pattern in _SIZES if (found := pattern.search(text))), None)
    if sizes is None:
        return ""
    meeting = {int(sizes["a"]), int(sizes["b"])}
    apart = [] if networks is None else [one for one in _differences(networks) if {one.student, one.teacher} == meeting]
    if apart:
        listed = "; ".join(f"{one.what}: student {one.student}{one.unit}, teacher {one.teacher}{one.unit}" for one in apart[:3])
        return f"The shapes differ ({listed}). Build a projector in build(): {apart[0].projector}, and apply it to the student in loss()"
    if _LAYER.search(text):
        return (
            f"A layer made for {sizes['b']} channels got {sizes['a']}: widths differ from network to network. Build layers in build() from "
            "the shapes of the two networks, for example kdzoo.projector(student.embedding, teacher.embedding)"
        )
    return ""


@dataclass(frozen=True)
class _Difference:
    what: str
    student: int
    teacher: int
    unit: str
    projector: str


def _differences(networks: Networks) -> Iterator[_Difference]:
    """Every size in which what is read of the two networks differs."""
    student, teacher = networks.student, networks.teacher
    if {Need.STAGES, Need.PREACT} & set(networks.reads):
        for number, (ours, theirs) in enumerate(zip(student.stages, teacher.stages, strict=False)):
            call = f"kdzoo.projector(student.stages[{number}], teacher.stages[{number}])"
            yield _Difference(f"stages[{number}]", ours.channels, theirs.channels, " channels", call)
            if ours.height != theirs.height:
                yield _Difference(f"stages[{number}]", ours.height, theirs.height, " pixels high", call)
            else:
                yield _Difference(f"stages[{number}]", ours.width, theirs.width, " pixels wide", call)
    if Need.EMBEDDING in networks.reads:
        call = "kdzoo.projector(student.embedding, teacher.embedding)"
        yield _Difference("embedding", student.embedding, teacher.embedding, " channels", call)


def _batch_size(text: str) -> str:
    if text.rstrip(".").endswith("at non-singleton dimension 0"):
        return "The first dimension is the batch, whose size varies: take it from the tensors, for example len(student.logits)"
    return ""


_HALF = re.compile(r"Half|BFloat16|float16", re.IGNORECASE)


def _half(text: str) -> str:
    if _HALF.search(text) and re.search(r"dtype|type|not implemented", text):
        return "The networks' outputs may be in half precision: convert first, for example student.logits.float()"
    return ""


def _device(text: str) -> str:
    if re.search(r"NVIDIA|CUDA|same device|cuda:\d", text):
        return (
            "Leave out .cuda() and device='cuda': student, teacher and batch are on the run's device already; "
            "new tensors go there with device=student.logits.device"
        )
    return ""


def _outputs(error: BaseException) -> str:
    if isinstance(error, TypeError) and re.search(r"\bOutputs\b", str(error)):
        return "student and teacher are not tensors but hold several: read one, for example student.logits or student.stages[-1]"
    if isinstance(error, TypeError) and "'Batch'" in str(error):
        return "batch is not a tensor: read batch.targets, batch.index or batch.inputs"
    return ""


def _in_place(text: str) -> str:
    if "in-place operation" in text or "inplace operation" in text:
        return "An output of the student is changed in place (div_, +=, x[...] = ...): write a new tensor instead, for example t = t / 4"
    return ""


def _numpy(text: str) -> str:
    if "Can't call numpy()" in text:
        return "Compute with torch: NumPy carries no gradient"
    return ""


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
        each = ", one value a sample" if value.ndim == 1 and len(value) > 1 else ""
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
    found = [f"the class attribute {name} ({_kind(value)})" for name, value in own.items()]
    return found + [
        f"{name} at module level ({_kind(value)})" for name, value in _reached(vars(cls).get("loss") or getattr(cls, "loss", None), set())
    ]


def _reached(function: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Layers among the globals and the closure of a function, and of the functions of the same file that it calls."""
    code = getattr(function, "__code__", None)
    if code is None or id(code) in seen:
        return
    seen.add(id(code))
    names = set(code.co_names).union(*(inner.co_names for inner in code.co_consts if inspect.iscode(inner)))
    reached = [(name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            reached.append((name, cell.cell_contents))
        except ValueError:  # a name that is bound later
            continue
    for name, value in reached:
        if _learns(value):
            yield name, value
        elif inspect.isfunction(value) and (value.__module__ or "").partition(".")[0] not in ("torch", "kdzoo", "numpy"):
            yield from _reached(value, seen)


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
    if found := re.search(r"non-annotated attribute was detected: `(\w+) = (.*?)`", text, re.DOTALL):
        name, value = found.groups()
        if re.match(r"(\w+\.)*[A-Z]\w*\(", value):
            return f"{name} = {first_line(value)} is a class attribute. Layers: {BUILD}"
        return f"{name} = {first_line(value)} has no type: a hyper-parameter is declared as {name}: float = {first_line(value)}"
    if type(error).__name__ == "PydanticSchemaGenerationError":
        return f"a field of a Method is a hyper-parameter (a number, a text, a bool or a list of them), not a layer. Layers: {BUILD}"
    return ""
