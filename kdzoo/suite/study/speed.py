"""How fast a machine trains: multiply-accumulates a second, from what runs have cost on it. Free of torch."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdzoo.models.known import own_networks
from kdzoo.runs.costs import RunCost
from kdzoo.runs.cpu import cpu_model


@dataclass(frozen=True)
class Machine:
    """A machine and its speeds: pairs of the multiply-accumulates of a training image and of a second, by the first."""

    name: str
    speeds: tuple[tuple[float, float], ...]

    def seconds(self, macs: float) -> float:
        """How long a training image of so many multiply-accumulates takes, at the speed of the measured one that is nearest in size."""
        _, speed = min(self.speeds, key=lambda one: abs(math.log(one[0] / macs)))
        return macs / speed


UNMEASURED = Machine("two CPU cores", ((1e9, 150e9),))
"""two cores as they were measured once (results/speed/cpu.md: 147e9 and 205e9 multiply-accumulates a second)"""


def this_machine(costs: Mapping[str, RunCost]) -> Machine:
    """This machine, all cores of its CPU, by what kinds of runs cost on it (`read_costs`); `UNMEASURED` where none counts.

    Kinds whose networks are kdzoo's own count, in float32. Costs are of a process's threads; a bench has a process for each core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    by_size = defaultdict(list)
    for kind, cost in costs.items():
        machine = json.loads(kind)
        macs = _macs_of_step(machine)
        if macs is not None and cost.image > 0 and machine["machine"] == cpu_model():
            by_size[macs].append(macs / cost.image * cores / machine["threads"])
    speeds = tuple((macs, statistics.median(found)) for macs, found in sorted(by_size.items()))
    return Machine(f"this machine's {cores} CPU cores", speeds) if speeds else UNMEASURED


def _macs_of_step(kind: Mapping[str, Any]) -> float | None:
    """Three forward passes of the student and one of the teacher for an image; None where that is not known."""
    networks = [kind["student"]] * 3 + ([] if kind["teacher"] is None else [kind["teacher"]])
    if kind["recipe"]["precision"] != "float32" or any(rest != ["standard", None] for _, *rest in networks):
        return None
    counts = [macs_at(name, *kind["shape"][1:]) for name, *_ in networks]
    return None if None in counts else sum(count for count in counts if count is not None)


def macs_at(name: str, height: int, width: int) -> float | None:
    """Multiply-accumulates of an image of this size through a network of kdzoo's own; None for another."""
    known = own_networks().get(name)
    return None if known is None else known.macs * height * width / (known.input[1] * known.input[2])
