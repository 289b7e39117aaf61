"""On which machines the same run comes to the same bits. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.suite.plan.starts import Start

DECIDES_BITS = {
    "device": "device",
    "cpu": "model of CPU",
    "cpu_capability": "CPU capability",
    "torch_build": "build of torch",
    "threads": "number of threads",
}
"""what of an environment decides the last bits on a CPU, in words"""


OF_BITS = ("channels_last", "stack_students", "compile")
"""options of execution that may change the last bits, beside device and threads"""


@dataclass(frozen=True)
class Bench:
    """A bench whose runs are compared with others: its folder, and the commands that trained it."""

    folder: Path
    starts: Sequence[Start] = ()

    def options_of(self, run_id: str) -> dict[str, Any]:
        """The options that may change the last bits with which a run was trained, as far as its bench tells."""
        configs = [start.config for start in self.starts if run_id in start.runs]
        return {name: value for name in OF_BITS if configs and (value := configs[-1].get(name)) is not None}


def why_not_same_bits(one: Mapping[str, Any], other: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """Why two environments may come to different last bits, in words; None where they come to the same.

    options: those of execution that the run was trained with, as far as they are known.
    """
    if one.get("device") != "cpu" or other.get("device") != "cpu":
        return "only runs on a CPU repeat bit for bit"
    if one.get("compile") or options.get("compile"):
        return "it was compiled (--compile)"
    if one.get("processes") or other.get("processes"):
        return "several processes trained it together (--processes-per-run)"
    if options.get("stack_students"):
        return "students were computed as one batch (--stack-students)"
    missing = [words for name, words in DECIDES_BITS.items() if one.get(name) is None]
    if missing:
        return f"its {' and '.join(missing)} {'was' if len(missing) == 1 else 'were'} not recorded"
    differing = [words for name, words in DECIDES_BITS.items() if one[name] != other.get(name)]
    return f"another {' and '.join(differing)}" if differing else None
