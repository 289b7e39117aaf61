"""Which classes of the training images a student is taught on: from words to numbers, and back to words. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

from kdzoo.errors import InputError, unknown
from kdzoo.runs.spec import TransferSpec
from kdzoo.text import number_of

LEAVE_OUT = "-"
"""stands before a class whose images the student is not taught on"""
NAMED = 6
"""up to this many classes are named; of more the number is given"""


def class_numbers(words: Sequence[str], classes: Sequence[str]) -> tuple[int, ...] | None:
    """The numbers of the classes that `7,8` (these) or `-3` (all but these) mean, in ascending order; None where it is all of them.

    A class is given by its name, or by its number where no name is a number. Raises InputError for classes that the data
    lack, for both ways at once, and where no class is left.
    """
    problems: list[str] = []
    included: set[int] = set()
    left_out: set[int] = set()
    for word in words:
        negative = word.startswith(LEAVE_OUT) and word not in classes
        number = _number(word.removeprefix(LEAVE_OUT) if negative else word, classes)
        if number is None:
            problems.append(unknown("transfer_classes", word.removeprefix(LEAVE_OUT) if negative else word, classes))
        else:
            (left_out if negative else included).add(number)
    if included and left_out:
        problems.append(
            f"transfer_classes: expected the classes to teach ({names_of(included, classes)}) or the classes to leave out "
            f"({', '.join(LEAVE_OUT + classes[number] for number in sorted(left_out))}), got both"
        )
    if problems:
        raise InputError(*problems)
    numbers = included or set(range(len(classes))) - left_out
    if not numbers:
        raise InputError(f"transfer_classes: all {len(classes)} classes are left out; expected at least one class to teach")
    return None if len(numbers) == len(classes) else tuple(sorted(numbers))


def _number(word: str, classes: Sequence[str]) -> int | None:
    """A class's number from its name or, where no name is a number, from its number; None where there is no such class."""
    if word in classes:
        return list(classes).index(word)
    if word.isdecimal() and int(word) < len(classes) and not any(name.isdecimal() for name in classes):
        return int(word)
    return None


def names_of(numbers: Sequence[int] | set[int], classes: Sequence[str]) -> str:
    """Classes by name, in the order of their numbers."""
    return ", ".join(classes[number] if number < len(classes) else str(number) for number in sorted(numbers))


def classes_in_words(numbers: Sequence[int], classes: Sequence[str]) -> str:
    """`all classes but 3`, `classes 7, 8`, `30 of 100 classes`."""
    left_out = sorted(set(range(len(classes))) - set(numbers))
    if len(left_out) <= min(NAMED, len(numbers)):
        return f"all classes but {names_of(left_out, classes)}"
    if len(numbers) <= NAMED:
        return f"class{'es' * (len(numbers) > 1)} {names_of(numbers, classes)}"
    return f"{len(numbers)} of {len(classes)} classes"


def transfer_in_words(transfer: TransferSpec, classes: Sequence[str], unlabelled: int | None = None) -> str:
    """A transfer set as tables name it: `all classes but 3`, `all classes and 300 unlabelled images`.

    unlabelled: how many images without labels it has, where that is known.
    """
    extra = [] if transfer.images is None else ["unlabelled images" if unlabelled is None else number_of(unlabelled, "unlabelled image")]
    if transfer.only:
        return f"{extra[0]} alone"
    return " and ".join(["all classes" if transfer.classes is None else classes_in_words(transfer.classes, classes), *extra])


def request_in_words(words: Sequence[str]) -> str:
    """The same from the words of the option, before the data are read."""
    if all(word.startswith(LEAVE_OUT) for word in words):
        return f"all classes but {', '.join(word.removeprefix(LEAVE_OUT) for word in words)}"
    return f"class{'es' * (len(words) > 1)} {', '.join(words)}"
