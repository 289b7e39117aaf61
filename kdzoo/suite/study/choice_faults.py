"""What is wrong with how a study names some of a stage's runs: their pair and their setting."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError, unknown
from kdzoo.suite.plan.config import NONE
from kdzoo.suite.plan.pairs import read_pairs
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.study.study import Study

SETTING_KEYS = ("temperature", "alpha", "weight", "dose", "coefficient", "task")
"""of any method's setting, beside its hyper-parameters"""
PLAIN_NAME = re.compile(r"([A-Za-z0-9_.]+)(?:@[a-z]+)?")
"""a network that goes by its name alone, also with a stem"""


def wrong_keys(method: str, setting: Mapping[str, object]) -> list[str]:
    """The keys of a setting that a method does not have; none of a method that only a plugin knows."""
    if method == NONE:
        return ["setting: the student alone has none"] if setting else []
    own = fields_of(method)
    known = dict.fromkeys([*SETTING_KEYS, *own])
    return [f"setting: {unknown('key', key, known)}" for key in setting if key not in known] if own else []


def wrong_pair(study: Study, name: str | None, pair: str | None) -> list[str]:
    """A pair that a stage does not train, as far as its file names the networks; nothing where its bench has faults of its own."""
    stage = study.stage(name)
    if pair is None or stage.step is not None or stage.teacher is not None:
        return []
    try:
        networks = read_pairs(study.config(stage), [])
    except InputError:
        return []
    found = [[PLAIN_NAME.fullmatch(network) for network in networks_of_pair] for networks_of_pair in networks]
    known = ["/".join(match[1] for match in matches if match) for matches in found if all(matches)]
    return [unknown(f"pair of stage {stage.name}", pair, known)] if len(known) == len(found) and pair not in known else []


def fields_of(method: str) -> list[str]:
    """The hyper-parameters and doses of the methods of a sum, as axes name them; nothing of what only a plugin knows."""
    with REGISTRY.declarations():
        try:
            fields = {name: list(REGISTRY.get(name).model_fields) for name in parse_request(method).terms}
        except InputError:
            return []
    options = [text for name, keys in fields.items() for key in keys for text in (key, f"{name}.{key}")]
    return [*options, *(f"{name}.dose" for name in fields)]
