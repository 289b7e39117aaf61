"""Which tests are run against a mutant of which module, the nearest first: all of them are run by CI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Selection:
    """Test files, and for pytest's -k a name that tests must hold; "" for all."""

    files: tuple[str, ...]
    name: str = ""


SHARED_BY_METHODS = {
    "_ops": ("hinton", "dkd", "at", "fitnet", "rkd", "ofd", "semckd", "dml", "crd", "mlld", "ickd", "lwm", "vid", "norm", "ab"),
    "_alike": ("unlabelled_losses",),
    "ea_dkd": ("ea",),
    "ea_hinton": ("ea",),
    "ensemble_losses": ("ensembles",),
    "ensemble_probabilities": ("ensembles",),
    "fitnet_two_stage": ("fitnet",),
    "embed": ("unlabelled_losses",),
    "tokens": ("unlabelled_losses",),
    "pseudo_classes": ("unlabelled_losses",),
    "proteus": ("unlabelled_losses",),
}
"""modules whose tests have another name than theirs"""

ALL_METHODS = (
    *(f"tests/methods/test_{name}.py" for name in ("golden", "golden2", "golden3", "published_steps", "published_coefficients")),
    "tests/test_conformance.py",
    "tests/zoo/test_properties.py",
)
"""what runs every method by its name"""

BY_MODULE = {
    "kdzoo/training/calibration.py": ("tests/test_calibration.py",),
    "kdzoo/training/dot.py": ("tests/test_dot.py",),
    "kdzoo/training/optim.py": ("tests/test_optim.py", "tests/suite/test_paper_recipe.py", "tests/methods/test_published_steps.py"),
    "kdzoo/training/regularise.py": ("tests/test_regularise.py",),
    "kdzoo/training/stacked.py": ("tests/test_stack.py",),
    "kdzoo/training/tally.py": ("tests/test_bad_losses.py", "tests/test_training.py"),
    "kdzoo/training/doses.py": ("tests/suite/test_doses.py",),
    "kdzoo/training/named_scores.py": ("tests/test_named_scores.py",),
    "kdzoo/training/member.py": ("tests/test_few_images.py", "tests/test_training.py"),
    "kdzoo/training/train.py": ("tests/test_training.py", "tests/test_regularise.py"),
    "kdzoo/teachers/answers.py": ("tests/test_teacher_cache.py", "tests/test_teacher_cache_damage.py"),
    "kdzoo/teachers/cache.py": ("tests/test_teacher_cache.py", "tests/test_teacher_cache_damage.py"),
    "kdzoo/teachers/columns.py": ("tests/test_teacher_cache.py", "tests/test_teacher_cache_damage.py"),
    "kdzoo/teachers/disk.py": ("tests/test_teacher_cache_damage.py", "tests/test_teacher_cache.py"),
    "kdzoo/suite/report/error_model.py": ("tests/suite/test_stats.py", "tests/test_error_rates.py"),
    "kdzoo/suite/report/intervals.py": ("tests/suite/test_stats.py", "tests/test_error_rates.py"),
    "kdzoo/suite/report/rules.py": ("tests/suite/test_stats.py", "tests/suite/test_collapsed.py"),
    "kdzoo/suite/report/over_pairs.py": ("tests/suite/test_over_pairs.py",),
    "kdzoo/suite/report/race.py": ("tests/suite/test_race.py",),
    "kdzoo/suite/report/searches.py": ("tests/suite/test_searches.py",),
    "kdzoo/suite/report/score.py": ("tests/suite/test_searches.py", "tests/suite/test_leaderboard.py"),
    "kdzoo/suite/report/selection.py": ("tests/suite/test_select.py", "tests/suite/test_choice.py", "tests/suite/test_leaderboard.py"),
    "kdzoo/suite/report/two_models.py": ("tests/suite/test_models.py",),
    "kdzoo/suite/report/verdict.py": ("tests/suite/test_verdict.py", "tests/suite/test_leaderboard.py"),
    "kdzoo/suite/report/swept.py": ("tests/suite/test_swept.py",),
    "kdzoo/suite/report/leaderboard.py": ("tests/suite/test_leaderboard.py", "tests/suite/test_collapsed.py"),
}
"""the modules of other rooms that compute numbers"""


def modules() -> dict[str, list[str]]:
    """The modules that mutants are made of, by area."""
    areas: dict[str, list[str]] = {"methods": [f"kdzoo/methods/{path.name}" for path in sorted((ROOT / "kdzoo/methods").glob("[!_]*.py"))]}
    areas["methods"] += ["kdzoo/methods/_ops.py", "kdzoo/methods/_alike.py"]
    for module in BY_MODULE:
        areas.setdefault(Path(module).parent.name, []).append(module)
    return areas


def selections(module: str) -> list[Selection]:
    """What is run against a mutant of this module, each only where it survived what stands before it."""
    if module in BY_MODULE:
        return [Selection(BY_MODULE[module])]
    name = Path(module).stem
    near = Selection(tuple(f"tests/methods/test_{test}.py" for test in SHARED_BY_METHODS.get(name, (name,))))
    return [near] if name.startswith("_") else [near, Selection(ALL_METHODS, name)]
