"""What doses the published weights have on given networks, data and recipe: measured, and nothing trained but the teachers.

python benchmarks/doses.py --out results/doses/digits.md
python benchmarks/doses.py --data cifar100 --limit 10000 --pairs resnet56/resnet20,resnet32x4/resnet8x4 --epochs 8
python benchmarks/doses.py --data cifar100_16 --pairs resnet20/resnet20 --recipe aber200 --plugin configs/papers/aber200.py
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kdzoo.contract.methods import REGISTRY
from kdzoo.files import CONFIGS
from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.events import Event, Note, TeacherChecked
from kdzoo.suite.plan.doses import MeasuredRatio, read_doses
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.run.bench import with_weights
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare
from kdzoo.training.located import Modules


def measured(options: Mapping[str, Any]) -> tuple[list[MeasuredRatio], dict[str, str]]:
    """The ratios of all methods that have a dose, and of the others why they have none or why it was not measured."""
    with tempfile.TemporaryDirectory() as place:
        config = bench_config({**options, "doses": [1], "seeds": 1, "jobs": 1, "name": "doses", "results": place}, None)
        prepared = prepare(config)
        _, failed = with_weights(prepared, Here(), tell, Modules())
        reasons = {name: card.no_dose for name in config.methods if (card := REGISTRY.get(name).card).no_dose}
        return list(read_doses(prepared.plan.folder).values()), {**reasons, **failed}


def tell(event: Event) -> None:
    match event:
        case Note(text):
            print(text, flush=True)
        case TeacherChecked():
            print(f"teacher {event.name}: test top-1 {event.test:.1%}", flush=True)


def table(found: Sequence[MeasuredRatio], reasons: Mapping[str, str]) -> str:
    """A row a method with one column per pair: the published coefficients and the doses they come to."""
    pairs = sorted({one.pair for one in found})
    by_method: dict[str, dict[str, float]] = {}
    for one in found:
        published = REGISTRY.get(one.method).card.published
        by_method.setdefault(one.label, {})[one.pair] = one.dose(published.term, published.task) or math.nan
    rows = sorted(by_method.items(), key=lambda row: -max(row[1].values()))
    lines = ["| method | family | published | " + " | ".join(pairs) + " |", "| --- | --- | --- |" + " ---: |" * len(pairs)]
    for method, doses in rows:
        card = REGISTRY.get(method).card
        of_term = REGISTRY.get(next(one.method for one in found if one.label == method)).card.published
        sums = f"{of_term.task:g} CE + {of_term.term:g} D"
        cells = " | ".join(f"{doses[pair]:.2g}" if pair in doses else "" for pair in pairs)
        lines.append(f"| {method} | {card.family} | {sums} | {cells} |")
    return "\n".join([*lines, "", *(f"- {method}: {reason}" for method, reason in sorted(reasons.items()))]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", help="all of the zoo's bench by default")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--pairs", default="digits")
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--channels-last", action="store_true", default=None, dest="channels_last")
    parser.add_argument("--plugin", action="append", help="a file with methods of one's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="a Markdown file; the numbers go beside it as JSON")
    asked = parser.parse_args()
    zoo = yaml.safe_load((CONFIGS / "benches" / "zoo_digits.yaml").read_text())["methods"]
    options = {key: value for key, value in vars(asked).items() if key not in ("out", "set") and value is not None}
    changes = {key: yaml.safe_load(value) for key, _, value in (text.partition("=") for text in asked.set)}
    found, reasons = measured({"methods": zoo, **options, "set": changes})
    text = table(found, reasons)
    print(text)
    if asked.out is not None:
        content = [{**vars(one), "hyperparameters": dict(one.hyperparameters)} for one in found]
        write_bytes(asked.out, text.encode())
        write_bytes(asked.out.with_suffix(".json"), (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
