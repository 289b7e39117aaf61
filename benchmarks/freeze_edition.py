"""Freezes an edition of the benchmark: writes the pairs, data, recipes and teachers of benches, and all methods' versions.

python benchmarks/freeze_edition.py results/digits results/zoo --write kdzoo/configs/editions/2026.12.yaml
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from kdzoo.contract.methods import REGISTRY
from kdzoo.runs.spec import ENGINE
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.edition import Edition, recipe_digest
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.records import Record

HEAD = """# An edition of the benchmark: what is frozen here stays as it is, and a table names the edition only if every run fits it.
# Written by: python benchmarks/freeze_edition.py {benches} --write {file}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, required=True)
    options = parser.parse_args()
    content = {
        "engine": ENGINE,
        "packages": {name: version(name).partition("+")[0] for name in ("torch", "timm")},
        "tables": [table for bench in options.benches for table in tables_of(bench)],
        "methods": {name: REGISTRY.get(name).card.version for name in REGISTRY.own_names()},
    }
    Edition.model_validate(content)
    options.write.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, width=120)
    options.write.write_text(HEAD.format(benches=" ".join(map(str, options.benches)), file=options.write) + text)


def tables_of(bench: Path) -> list[dict[str, Any]]:
    """The tables of a bench, one for each content of data and recipe."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in read_bench(bench).records:
        data = record.run.data
        key = (data.fingerprint, data.limit, recipe_digest(record.run.recipe))
        table = found.setdefault(
            key,
            {
                "pairs": [],
                "data": data.name,
                "fingerprint": data.fingerprint,
                "recipe": record.table_key.recipe,
                "digest": recipe_digest(record.run.recipe),
                "teachers": [],
                **({"limit": data.limit} if data.limit is not None else {}),
            },
        )
        table["pairs"] = sorted({*table["pairs"], record.table_key.pair})
        table["teachers"] = sorted({*table["teachers"], *teachers_of(record, bench)})
    return list(found.values())


def teachers_of(record: Record, bench: Path) -> set[str]:
    """The run of a teacher, and that of the same teacher for a refit, where its run.json is kept beside the bench."""
    if record.run.teacher is None:
        return set()
    run_id = record.run.teacher.start.removeprefix("run:")
    folder = RunFolder(bench / "teachers" / run_id)
    if not (folder.path / "run.json").exists():
        return {run_id}
    run, _ = folder.read_plan()
    return {run_id, run.model_copy(update={"data": run.data.model_copy(update={"val_fraction": 0.0})}).id}


if __name__ == "__main__":
    main()
