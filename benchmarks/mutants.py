"""Planted bugs: small changes to kdzoo's own numerics, each of which the tests are run against; what they let pass is listed.

    python benchmarks/mutants.py --count 500 --write results/mutants    # goes on where it was stopped
    python benchmarks/mutants.py --check                                # do the tests pass where nothing is changed?

A mutant is one change inside a function (mutant_operators.py), drawn by a seed, as many from each area as its share says and
in turn from each of its modules. The package is copied to a temporary folder that stands first on the path; each mutant's
source is written there for as long as a fork of this process, in which torch is already imported, runs the tests that
mutant_tests.py names, up to the first that fails. A fork that takes longer than the limit counts as caught. Needs the extra
`mutants`.
"""

from __future__ import annotations

import argparse
import compileall
import csv
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mutant_operators import Site, Source
from mutant_tests import ROOT, Selection, modules, selections

SEED = 0
SHARES = {"methods": 0.6, "training": 0.13, "teachers": 0.07, "report": 0.2}
LIMIT_SECONDS = 120
WARM = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy.stats",
    "pandas",
    "hypothesis",
    "pytest",
    "pydantic",
    "typer",
    "rich",
    "yaml",
    "altair",
)
SURVIVED, CAUGHT, NO_TESTS = "survived", "caught", 5


@dataclass(frozen=True)
class Row:
    """A line of mutants.csv. by: the first test that failed. reason: of a survivor, why no test can see it, or "open"."""

    area: str
    file: str
    line: str
    kind: str
    before: str
    after: str
    outcome: str
    by: str
    reason: str

    @property
    def key(self) -> tuple[str, ...]:
        return self.file, self.line, self.kind, self.before, self.after


def drawn(area: str, count: int, seed: int = SEED) -> list[tuple[str, Source, Site]]:
    """The first mutants of an area: its modules in turn, each module's sites in an order that the seed gives."""
    queues = []
    for module in modules()[area]:
        source = Source((ROOT / module).read_text())
        order = sorted(source.sites, key=lambda site: (site.line, site.kind, site.before, site.after))
        random.Random(f"{seed} {module}").shuffle(order)
        queues.append([(module, source, site) for site in order])
    random.Random(f"{seed} {area}").shuffle(queues)
    rounds = range(max(map(len, queues)))
    return [queue[turn] for turn in rounds for queue in queues if turn < len(queue)][:count]


class Copy:
    """A copy of the package that stands first on the path of what it forks, so that mutants reach new processes too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        shutil.copytree(ROOT / "kdzoo", folder / "kdzoo", ignore=shutil.ignore_patterns("__pycache__"))
        for other in ROOT.iterdir():
            if other.name not in {"kdzoo", ".git"}:
                (folder / other.name).symlink_to(other)
        for path in (folder / "kdzoo").rglob("*.py"):  # bytecode is kept by whole seconds and size
            os.utime(path, (10**9, 10**9))
        compileall.compile_dir(str(folder / "kdzoo"), quiet=2)

    def first_failure(self, module: str, text: str, selection: Selection) -> str | None:
        """The first test that fails where the module has this text; "" where the limit was passed, None where all pass."""
        path = self._folder / module
        original = path.read_text()
        path.write_text(text)
        try:
            return self._run(selection)
        finally:
            path.write_text(original)
            os.utime(path, (10**9, 10**9))

    def first_failure_unchanged(self, selection: Selection) -> str | None:
        """The same for the package as it is."""
        return self._run(selection)

    def _run(self, selection: Selection) -> str | None:
        told = self._folder / "failed.txt"
        told.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            try:
                self._test(selection, told)
            except BaseException as error:
                print(repr(error), file=sys.__stderr__, flush=True)
            os._exit(99)
        status = _wait(child, LIMIT_SECONDS)
        if status is None:
            return ""
        if told.exists():
            return told.read_text()
        if status in {0, NO_TESTS}:
            return None
        if status < 0:
            return f"signal {-status}"
        raise SystemExit(f"pytest ended with status {status} for {selection} and named no test")

    def _test(self, selection: Selection, told: Path) -> None:
        """In the fork: runs pytest and leaves with its status."""
        import pytest

        os.setsid()
        os.environ.update(
            PYTHONPATH=str(self._folder), PYTHONDONTWRITEBYTECODE="1", KDZOO_TURN="all", KDZOO_CACHE=str(self._folder / "cache")
        )
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(self._folder))
        os.chdir(ROOT)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)

        class Teller:
            def pytest_collectreport(self, report: pytest.CollectReport) -> None:
                self.tell(report)

            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                self.tell(report)

            def tell(self, report: pytest.CollectReport | pytest.TestReport) -> None:
                if report.failed and not told.exists():
                    told.write_text(report.nodeid)

        tests = str(ROOT / "tests")
        for name, module in list(sys.modules.items()):  # a test of this tool may have imported them, with the package as it is
            if name.split(".")[0] == "kdzoo" or str(getattr(module, "__file__", None)).startswith(tests):
                del sys.modules[name]
        import kdzoo

        assert Path(kdzoo.__file__).is_relative_to(self._folder), kdzoo.__file__
        files = [file for file in selection.files if (ROOT / file).exists()]
        words = ["-q", "-p", "no:cacheprovider", "-x", "--rootdir", str(ROOT), *files]
        os._exit(pytest.main([*words, *(["-k", selection.name] if selection.name else [])], plugins=[Teller()]))


def _wait(child: int, seconds: float) -> int | None:
    """The exit status of a child, below 0 for a signal; None where it was killed with its group after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def judge(copy: Copy, area: str, module: str, source: Source, site: Site, *, farthest: int | None = None) -> Row:
    """Runs the tests against one mutant; farthest: only so many of the module's selections."""
    text = source.mutate(site)
    row = Row(area, module, str(site.line), site.kind, site.before, site.after, SURVIVED, "", "open")
    for selection in selections(module)[:farthest]:
        failed = copy.first_failure(module, text, selection)
        if failed is not None:
            by = failed.split("[")[0] or f"more than {LIMIT_SECONDS} seconds"
            return Row(**{**asdict(row), "outcome": CAUGHT, "by": by, "reason": ""})
    return row


def read_rows(path: Path) -> list[Row]:
    """The lines of mutants.csv; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(**line) for line in csv.DictReader(file)]


def write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def unchanged_failures(copy: Copy) -> Iterator[str]:
    """Tests that fail where nothing is changed: they would catch every mutant."""
    nearest = [selections(module)[0] for area in modules().values() for module in area]
    for selection in dict.fromkeys(nearest):
        failed = copy.first_failure_unchanged(selection)
        if failed is not None:
            yield failed or f"{selection}: more than {LIMIT_SECONDS} seconds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--areas", default=",".join(SHARES), help="some of " + ", ".join(SHARES))
    parser.add_argument("--write", type=Path, default=ROOT / "results" / "mutants")
    parser.add_argument("--again", action="store_true", help="judges the open survivors again, after new tests")
    parser.add_argument("--near", action="store_true", help="runs a method's own tests alone; --again then runs the others too")
    parser.add_argument("--minutes", type=float, default=600.0, help="begins no mutant after so many")
    parser.add_argument("--check", action="store_true", help="runs the tests where nothing is changed")
    args = parser.parse_args()
    for name in WARM:
        importlib.import_module(name)
    path, end = args.write / "mutants.csv", time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="kdzoo-mutants-") as folder:
        copy = Copy(Path(folder))
        if args.check:
            failures = list(unchanged_failures(copy))
            sys.exit("\n".join(failures) or 0)
        rows = {row.key: row for row in read_rows(path)}
        print(f"seed {SEED}")
        for area in args.areas.split(","):
            for module, source, site in drawn(area, round(args.count * SHARES[area])):
                key = (module, str(site.line), site.kind, site.before, site.after)
                if time.monotonic() > end or (key in rows and not (args.again and rows[key].reason == "open")):
                    continue
                rows[key] = judge(copy, area, module, source, site, farthest=1 if args.near else None)
                write_rows(path, list(rows.values()))
                print(f"{rows[key].outcome:9} {module}:{site.line} {site.before} -> {site.after}  {rows[key].by}", flush=True)


if __name__ == "__main__":
    main()
