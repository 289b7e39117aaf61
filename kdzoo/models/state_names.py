"""The names in a state dict: what frameworks put before each of them, and which belong to a loss."""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.")
"""what compilation, data parallelism, training frameworks and modules around a network put before each of its names"""
CRITERION = re.compile(r"^(criterion|loss|loss_fn|loss_fct|loss_func|loss_function)\.")
"""parameters and buffers of a loss that was saved beside the network"""


def common_prefix(names: Iterable[str]) -> str:
    """The longest row of known prefixes, such as `module._orig_mod.`, with which all names begin."""
    names, prefix = list(names), ""
    while names and (more := next((p for p in PREFIXES if all(name.startswith(prefix + p) for name in names)), None)):
        prefix += more
    return prefix
