"""Which failures are results: a setting under which training diverges does so again. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping

DIVERGED = "FloatingPointError"
"""how the last line of a failure begins where a loss or a weight became NaN or infinite"""


def others_than_divergence(failed: Mapping[str, str]) -> dict[str, str]:
    """The failures, by id, that training again might mend: all but losses and weights that became NaN or infinite."""
    return {run_id: error for run_id, error in failed.items() if DIVERGED not in error}
