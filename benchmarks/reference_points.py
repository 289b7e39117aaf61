"""Writes reference points: what controls, and teachers, are known to come to, seed by seed.

    python benchmarks/reference_points.py results/digits --command "kdzoo bench --seeds 10" --write kdzoo/configs/reference/digits.json

Every setting of the bench that has five seeds or more is a point, and so is every one of its teachers that was trained with five
seeds or more (`kdzoo train NETWORK --seed N` keeps them in the cache folder).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from kdzoo.runs.store import teacher_store
from kdzoo.suite.proof.reference import FEWEST_SEEDS, Point, key_of, points_of, write_text
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.records import Record, read_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--command", required=True, help="what trained the runs, for a reader")
    parser.add_argument("--write", type=Path, required=True)
    options = parser.parse_args()
    records = read_bench(options.bench).records
    points = [point for point in points_of([*records, *teachers_of(records)]).values() if is_known(point)]
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(write_text(points, options.command))
    for point in points:
        spread = point.spread("test")
        assert spread is not None
        print(f"{point.key} {point.method} {point.setting}: {100 * spread.mean:.2f} ± {100 * spread.sd:.2f} of {spread.count}")


def teachers_of(records: tuple[Record, ...]) -> list[Record]:
    """The kept teachers of a bench, of all seeds."""
    ids = {str(record.about.get("teacher_id")) for record in records if record.run.teacher is not None}
    kept = [read_record(folder) for folder in map(teacher_store().run, teacher_store().ids()) if folder.state() == "done"]
    return [record for record in kept if key_of(record.run) in ids]


def is_known(point: Point) -> bool:
    return len(point.values["test"]) >= FEWEST_SEEDS


if __name__ == "__main__":
    main()
