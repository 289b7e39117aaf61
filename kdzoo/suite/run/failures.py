"""Which failures are results: a setting under which training diverges does so again. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

DIVERGED = re.compile(r"(?:^|: )FloatingPointError\b")
"""the kind of a failure whose loss or weight became NaN or infinite, perhaps behind the words for a pretrain stage"""


def others_than_divergence(failed: Mapping[str, str]) -> dict[str, str]:
    """The failures, by id, that training again might mend: all but losses and weights that became NaN or infinite."""
    return {run_id: error for run_id, error in failed.items() if not DIVERGED.search(error)}
