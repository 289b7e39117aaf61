"""What the tables of a large bench cost: processor seconds to rebuild runs.csv, leaderboard.csv and leaderboard.md.

    python benchmarks/tables.py                                  # 1,500 runs written for it, in a folder that is removed
    python benchmarks/tables.py --runs 15000 --folder /tmp/big   # kept, so that another checkout can measure the same runs
    PYTHONPATH=../before python benchmarks/tables.py --folder /tmp/big

Runs are written as training writes them, 25 methods' settings on 30 seeds each. The digest at the end is of the three
tables: two checkouts that print the same one make the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "suite"))

from test_leaderboard import objective, write

from kdzoo.suite.report.table_files import write_tables

SEEDS = 30
TABLES = ("runs.csv", "leaderboard.csv", "leaderboard.md")


def write_runs(folder: Path, runs: int) -> None:
    """The student alone, at, and as many settings of hinton as it takes, on SEEDS seeds each."""
    settings = [objective("none"), objective("at"), *(objective("hinton", 1 + at / 100) for at in range(max(runs // SEEDS - 2, 1)))]
    for at, setting in enumerate(settings):
        for seed in range(SEEDS):
            accuracy = 0.8 + (37 * at + 11 * seed) % 100 / 1000
            write(folder, setting, seed, val=accuracy, test=accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1500, help="about so many runs (default 1500)")
    parser.add_argument("--folder", type=Path, help="where the bench is kept; written only where it is not there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "bench"
        if not folder.exists():
            write_runs(folder, options.runs)
        began = time.process_time()
        _, bench = write_tables(folder)
        took = time.process_time() - began
        digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in TABLES)).hexdigest()
    print(f"{len(bench.records):,} runs: {took:.2f} s of processor time; tables {digest[:16]}")


if __name__ == "__main__":
    main()
