"""What a study's table says of each number: whether the paper's is reached. Free of torch."""

from __future__ import annotations

REACHED, BY_MEAN, ABOVE, BELOW = "yes", "yes, by the mean alone", "no: above", "no: below"
OPEN, MISSING = "open: runs failed", "not measured"
