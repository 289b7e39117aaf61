"""From trials to a recommendation: which methods first, at which temperature and dose. Free of torch.

A method is expected to gain the sum of its gains over tuned plain KD, divided by one more than the number of its tables: tried once it
is believed by half, tried in nine tables by nine tenths, and never tried it is expected to do as well as plain KD. It stands before
plain KD only where it was shown to be better on two data sets or more, by an interval that lies above plain KD; a gain on one alone,
or one that chance may have made, is a method to try next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdzoo.suite.advice.trials import COLLAPSED_GAIN, Trial
from kdzoo.suite.plan.config import KD
from kdzoo.suite.plan.doses import two_digits

MOST = 4
"""methods that are recommended beside plain KD"""
NEAR = 2.0
"""the published weight is kept where its dose here is within this factor of the one that was good elsewhere"""
LARGE = 10.0
"""a dose from which a weight is called too large for what compares maps, relations or gradients: these want about 1 at most"""


@dataclass(frozen=True)
class Choice:
    """A method that is worth trying, with the setting to begin with and the trials that speak for it.

    expected: the gain over tuned plain KD in points that the rule expects. dose: None where the published weight is to be
    taken. published_dose: what that comes to on these networks, None where it was not measured.
    """

    method: str
    expected: float
    temperature: float | None
    dose: float | None
    published_dose: float | None
    trials: tuple[Trial, ...]


def expected_gain(trials: Sequence[Trial]) -> float:
    """What a method's trials lead to expect of it in another table: its gains' sum over one more than their number, in points."""
    gains = [max(trial.gain, COLLAPSED_GAIN) if trial.collapsed else trial.gain for trial in trials]
    return sum(gains) / (len(gains) + 1)


def is_better_on_two(trials: Sequence[Trial]) -> bool:
    """Whether a method was shown to be better than tuned plain KD on two data sets or more: a table's 95 % interval lies above it."""
    return len({trial.data for trial in trials if trial.gain_low is not None and trial.gain_low > 0}) >= 2


def recommend(trials: Iterable[Trial], candidates: Collection[str], published_doses: Mapping[str, float]) -> list[Choice]:
    """The methods to try of the candidates, the most promising first: plain KD, and at most MOST that are expected to gain on it.

    published_doses: by method, the dose of its published weight on the networks at hand, as far as measured.
    """
    known = [trial for trial in trials if trial.method in candidates]
    by_method = {name: tuple(trial for trial in known if trial.method == name) for name in candidates}
    choices = [choose(name, of_method, published_doses.get(name)) for name, of_method in by_method.items() if of_method and name != KD]
    gaining = sorted((choice for choice in choices if choice.expected > 0), key=lambda choice: (-choice.expected, choice.method))[:MOST]
    kd = [choose(KD, by_method[KD], published_doses.get(KD))] if KD in by_method else []
    sure = [choice for choice in gaining if is_better_on_two(choice.trials)]
    return [*sure, *kd, *(choice for choice in gaining if choice not in sure)]


def choose(method: str, trials: Sequence[Trial], published_dose: float | None) -> Choice:
    """A method at the setting to begin with, from the settings that validation chose for it elsewhere."""
    healthy = [trial for trial in trials if not trial.collapsed] or list(trials)
    temperatures = Counter(trial.temperature for trial in healthy)
    return Choice(
        method=method,
        expected=expected_gain(trials),
        temperature=temperatures.most_common(1)[0][0] if temperatures else None,
        dose=dose_to_try(healthy, published_dose),
        published_dose=published_dose,
        trials=tuple(trials),
    )


def dose_to_try(trials: Sequence[Trial], published_dose: float | None) -> float | None:
    """The geometric mean of the doses that were chosen elsewhere, to two digits; None where the published weight has about that one."""
    doses = [trial.dose for trial in trials if trial.dose]
    if not doses:
        return None
    mean = math.exp(sum(map(math.log, doses)) / len(doses))
    if published_dose and 1 / NEAR <= published_dose / mean <= NEAR:
        return None
    return two_digits(mean)
