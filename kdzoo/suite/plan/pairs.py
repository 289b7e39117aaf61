"""The pairs of networks that a bench names. Free of torch."""

from __future__ import annotations

from kdzoo.errors import collect_problems
from kdzoo.models.pairs import pair as named_pair
from kdzoo.suite.plan.config import BenchConfig


def read_pairs(config: BenchConfig, problems: list[str]) -> list[tuple[str, str]]:
    """The pairs of a bench, teacher and student as they are named; what is wrong with their names is added to `problems`."""
    if bool(config.teacher) != bool(config.student):
        missing = "student" if config.teacher else "teacher"
        problems.append(f"{missing}: missing; give --{missing} too, or --pairs TEACHER/STUDENT instead of both")
    pairs = [(config.teacher, config.student)] if config.teacher and config.student else []
    for text in config.pairs:
        with collect_problems(problems):
            pair = named_pair(text)
            pairs.append((pair.teacher, pair.student))
    if not pairs and not problems:
        problems.append("pairs: missing; give --pairs TEACHER/STUDENT, or --teacher and --student")
    return pairs
