"""Named pairs of teacher and student, with the accuracies that the literature reports for them."""

from __future__ import annotations

from dataclasses import dataclass

from kdzoo.contract.registry import Definition, Registry
from kdzoo.errors import InputError, add_clause, did_you_mean


@dataclass(frozen=True)
class Pair:
    """A teacher and a student. data: the set it belongs to. published: top-1 per cent of teacher and student alone."""

    name: str
    teacher: str
    student: str
    data: str = ""
    published: tuple[float, float] | None = None
    source: str = ""


HINTON = "https://arxiv.org/abs/1503.02531"
CRD = "https://arxiv.org/abs/1910.10699"
LSKD = "https://arxiv.org/abs/2403.01427"

# CIFAR-100 top-1, per cent, of the teachers and of the students trained alone, as CRD's tables give them.
_TEACHERS = {"wrn_40_2": 75.61, "resnet56": 72.34, "resnet110": 74.31, "resnet32x4": 79.42, "cifar_vgg13": 74.64, "cifar_resnet50": 79.34}
_STUDENTS = {
    "wrn_16_2": 73.26,
    "wrn_40_1": 71.98,
    "resnet20": 69.06,
    "resnet32": 71.14,
    "resnet8x4": 72.50,
    "vgg8": 70.36,
    "mobilenetv2_half": 64.60,
    "shufflenetv1": 70.50,
    "shufflenetv2": 71.82,
}


def _cifar100(teacher: str, student: str, source: str) -> Pair:
    alone = _STUDENTS.get(student)
    return Pair(f"{teacher}/{student}", teacher, student, "cifar100", (_TEACHERS[teacher], alone) if alone else None, source)


_PAIRS = [
    Pair("digits", "digits_teacher", "digits_student", "digits"),
    Pair("cnn128/cnn64", "cnn128", "cnn64", "cifar10"),
    Pair("mlp_1200_1200/mlp_800_800", "mlp_1200_1200", "mlp_800_800", "mnist", (99.33, 98.54), HINTON),  # 67 and 146 errors of 10,000
    *(
        _cifar100(*names, CRD)
        for names in [
            ("wrn_40_2", "wrn_16_2"),
            ("wrn_40_2", "wrn_40_1"),
            ("resnet56", "resnet20"),
            ("resnet110", "resnet20"),
            ("resnet110", "resnet32"),
            ("resnet32x4", "resnet8x4"),
            ("cifar_vgg13", "vgg8"),
            ("cifar_vgg13", "mobilenetv2_half"),
            ("cifar_resnet50", "mobilenetv2_half"),
            ("cifar_resnet50", "vgg8"),
            ("resnet32x4", "shufflenetv1"),
            ("resnet32x4", "shufflenetv2"),
            ("wrn_40_2", "shufflenetv1"),
        ]
    ),
    *(
        _cifar100(*names, LSKD)
        for names in [("resnet32x4", "wrn_16_2"), ("resnet32x4", "wrn_40_2"), ("wrn_40_2", "resnet8x4"), ("wrn_40_2", "mobilenetv2_half")]
    ),
    Pair("resnet20/resnet8", "resnet20", "resnet8", "cifar10"),
    Pair("resnet110/resnet110", "resnet110", "resnet110", "cifar100"),
    Pair("resnet34/resnet18", "resnet34.tv_in1k:pretrained", "resnet18", "folder:PATH"),
    Pair("resnet50/mobilenetv1_100", "resnet50.tv_in1k:pretrained", "mobilenetv1_100", "folder:PATH"),
]
PAIRS: Registry[Pair] = Registry("pairs", {pair.name: pair for pair in _PAIRS})


def register_pair(pair: Pair) -> None:
    """Make a pair of your own known by its name; raises InputError where that names another pair."""
    PAIRS.add(pair.name, pair, Definition("", repr(pair), f"{pair.teacher}/{pair.student}"))


def pair(name: str) -> Pair:
    """A named pair, or `TEACHER/STUDENT` of any two networks; raises InputError with the nearest name."""
    if (entry := PAIRS.find(name)) is not None:
        return entry
    parts = name.split("/")
    if len(parts) != 2 or not all(parts):
        fault = f"pairs: unknown {name!r}{did_you_mean(name, PAIRS)}"
        raise InputError(add_clause(fault, "write TEACHER/STUDENT, or see `kdzoo pairs`"))
    return Pair(name, parts[0], parts[1])
