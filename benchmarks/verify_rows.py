"""Trains every twentieth finished run of all committed benches again, by `kdzoo verify`, and says how many agree.

    python benchmarks/verify_rows.py --seed 7                     # every bench below results/; hours
    python benchmarks/verify_rows.py --seed 7 --bench zoo_digits  # of the runs that the seed draws, those of this bench
    python benchmarks/verify_rows.py --seed 7 --list              # which runs these are, and what their training took

The runs of all benches stand in one order, by bench and id; the seed draws the first of each twenty. What `verified.json` of a
bench has of this seed already is not trained again, so that the same command goes on after an interruption. The outcome of all
verifications of this seed is printed as a table; `--write` keeps it as results/verified.md.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.verified_file import VerifiedRun, read_verifications

AGREEING = {"bits": "same bits", "spread": "within the spread"}
COLUMNS = (*AGREEING.values(), "disagrees", "not comparable")


@dataclass(frozen=True)
class Row:
    """A finished run. bench: its folder below the results; seconds: what its training took when it was recorded."""

    bench: str
    id: str
    seconds: float


def rows_of(results: Path) -> list[Row]:
    """The finished runs of all benches, by bench and id."""
    folders = sorted(file.parent for file in results.rglob("bench.json") if (file.parent / "runs").is_dir())
    return [
        Row(folder.relative_to(results).as_posix(), record.id, float((record.result or {})["seconds"]))
        for folder in folders
        for record in sorted(read_bench(folder).records, key=lambda record: record.id)
        if record.state == "done"
    ]


def draw(rows: Sequence[Row], every: int, seed: int) -> list[Row]:
    """One of each `every` rows, the first of them drawn."""
    return list(rows[random.Random(seed).randrange(every) :: every])


def verified(results: Path, bench: str, seed: int) -> dict[str, VerifiedRun]:
    """The runs of a bench that were trained again by this seed."""
    return {run.id: run for one in read_verifications(results / bench) if one.seed == seed for run in one.runs}


def verify(results: Path, rows: Iterable[Row], seed: int, words: Sequence[str]) -> None:
    """Train these runs again, bench by bench, those that have been by this seed left out."""
    waiting: dict[str, list[str]] = {}
    for row in rows:
        if row.id not in verified(results, row.bench, seed):
            waiting.setdefault(row.bench, []).append(row.id)
    for bench, ids in waiting.items():
        chosen = [word for run_id in ids for word in ("--run", run_id)]
        command = [sys.executable, "-m", "kdzoo", "verify", str(results / bench), "--sample", "0", "--seed", str(seed), *chosen, *words]
        print("+", " ".join(command[2:]), flush=True)
        if (status := subprocess.run(command).returncode) == 130:
            sys.exit(status)


def outcome(run: VerifiedRun) -> str:
    """Its column."""
    return AGREEING[run.by] if run.verdict == "agrees" and run.by is not None else run.verdict


def table(results: Path, rows: Sequence[Row], drawn: Sequence[Row], every: int, seed: int) -> str:
    """How many rows were drawn and how they ended, a line a bench, as Markdown."""
    of = Counter(row.bench for row in rows)
    lines = [
        f"{len(drawn)} of {len(rows)} finished runs, one of each {every}, were drawn by the seed {seed} and trained again by "
        "`kdzoo verify`, with their teachers where no weights of the recorded digest were at hand.",
        "",
        f"| bench | runs | drawn | {' | '.join(COLUMNS)} | not yet |",
        f"| --- |{' ---: |' * (len(COLUMNS) + 3)}",
    ]
    total: Counter[str] = Counter()
    reasons: list[str] = []
    for bench, ids in by_bench(drawn).items():
        found = verified(results, bench, seed)
        ends = Counter(outcome(found[run_id]) if run_id in found else "not yet" for run_id in ids)
        total += ends
        cells = [of[bench], len(ids), *(ends[column] for column in (*COLUMNS, "not yet"))]
        lines.append(f"| {bench} | {' | '.join(map(str, cells))} |")
        reasons += [
            f"- {bench}, {run_id}: {found[run_id].text}"
            for run_id in ids
            if run_id in found and outcome(found[run_id]) in ("disagrees", "not comparable")
        ]
    cells = [len(rows), len(drawn), *(total[column] for column in (*COLUMNS, "not yet"))]
    lines.append(f"| all | {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, *(["", *reasons] if reasons else []), ""])


def by_bench(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Ids by bench."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.bench, []).append(row.id)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--every", type=int, default=20, metavar="N", help="one run of each N (20)")
    parser.add_argument("--seed", type=int, required=True, help="which of each N")
    parser.add_argument("--bench", action="append", help="only runs of this bench, its folder below the results (repeatable)")
    parser.add_argument("--jobs", default="1", help="processes that train (1)")
    parser.add_argument("--list", action="store_true", help="only tell which runs these are")
    parser.add_argument("--write", action="store_true", help="write verified.md into the folder of the results")
    given = parser.parse_args()
    rows = rows_of(given.results)
    drawn = draw(rows, given.every, given.seed)
    chosen = [row for row in drawn if given.bench is None or row.bench in given.bench]
    if given.list:
        for row in chosen:
            print(f"{row.bench} {row.id} {row.seconds:.0f} s")
        print(f"{len(chosen)} runs, {sum(row.seconds for row in chosen) / 3600:.1f} hours of training, without teachers")
        return
    verify(given.results, chosen, given.seed, ["--jobs", given.jobs])
    text = table(given.results, rows, drawn, given.every, given.seed)
    if given.write:
        (given.results / "verified.md").write_text(f"# Rows that were trained again\n\n{text}")
    print(text)
    if any(run.verdict == "disagrees" for bench in by_bench(drawn) for run in verified(given.results, bench, given.seed).values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
