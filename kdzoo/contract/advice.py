"""What to write instead, where that can be told from the error that a user's loss raised: a rule for each usual slip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kdzoo.contract.needs import Need
from kdzoo.contract.shapes import Shapes


@dataclass(frozen=True)
class Networks:
    """The two networks that a loss failed on, and what it reads of them: so a width mismatch can be named."""

    student: Shapes
    teacher: Shapes
    reads: Need


def advice_for(error: BaseException, networks: Networks | None = None) -> str:
    """What to write instead, where that can be told from an error; empty elsewhere."""
    text = str(error)
    rules = (_width(text, networks), _batch_size(text), _half(text), _device(text), _outputs(error), _in_place(text), _numpy(text))
    return next(filter(None, rules), "")


_SIZES = (
    re.compile(r"size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\)"),
    re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(?P<a>\d+) and (?P<b>\d+)x\d+\)"),
    re.compile(r"to have (?P<b>\d+) channels, but got (?P<a>\d+) channels"),
    re.compile(r"running_mean should contain (?P<a>\d+) elements not (?P<b>\d+)"),
)

_LAYER = re.compile(r"mat1 and mat2|to have \d+ channels|running_mean should contain")


def _width(text: str, networks: Networks | None) -> str:
    """Which widths of student and teacher differ where two sizes do not fit, and the projector between them."""
    sizes = next((match for pattern in _SIZES if (match := pattern.search(text))), None)
    if sizes is None:
        return ""
    meeting = {int(sizes["a"]), int(sizes["b"])}
    unequal = [] if networks is None else [one for one in _differences(networks) if {one.student, one.teacher} == meeting]
    if unequal:
        widths = "; ".join(f"{one.what}: student {one.student}{one.unit}, teacher {one.teacher}{one.unit}" for one in unequal[:3])
        return f"The shapes differ ({widths}). Build a projector in build(): {unequal[0].projector}, and apply it to the student in loss()"
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
