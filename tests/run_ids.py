"""The ids of the runs that some forty configurations plan. `python tests/run_ids.py` writes them anew.

An id hashes everything that decides a run's numbers, so an id that moves orphans every result that lies under it. They are
written anew only where the engine's or a method's version is raised on purpose.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan

FILE = Path(__file__).parent / "golden" / "run_ids.json"
FOLDER = "FOLDER"
"""in a configuration: a folder of images that is drawn for it"""

CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "student alone": {"methods": ["none"]},
    "temperatures": {"methods": ["hinton"], "temperatures": [1, 2, 4, 8]},
    "alphas": {"methods": ["hinton", "at"], "alphas": [0, 0.5, 0.9]},
    "alpha one": {"methods": ["hinton"], "alphas": [1.0]},
    "weights": {"methods": ["at", "rkd"], "weights": [0.3, 1, 3]},
    "grid": {"methods": ["dkd"], "grid": {"dkd.nontarget_weight": [2, 8]}},
    "sums": {"methods": ["at+hinton", "crd+hinton+rkd"]},
    "exact sum": {"methods": ["0.1*ce+0.9*hinton+1000*at"]},
    "tune": {"methods": ["hinton", "dkd", "nkd"], "tune": 2},
    "seeds": {"methods": ["hinton"], "seeds": [5, 7]},
    "control seeds": {"methods": ["crd"], "seeds": 2, "control_seeds": 4},
    "feature methods": {"methods": ["fitnet", "at", "sp", "vid", "nst", "pkt", "ofd", "reviewkd"]},
    "relations": {"methods": ["rkd", "cc", "irg", "ickd", "dist"]},
    "banks": {"methods": ["crd", "crd_queue"]},
    "peers": {"methods": ["dml", "kdcl"]},
    "self-supervised": {"methods": ["byot", "cskd", "pskd", "tfkd"]},
    "two stages": {"methods": ["fitnet_two_stage", "ab", "ft", "fsp"]},
    "another head": {"methods": ["simkd", "srrl", "norm"]},
    "two views": {"methods": ["crld", "mlld"]},
    "gradients": {"methods": ["sobolev", "bss", "lwm"]},
    "temperature learnt": {"methods": ["ctkd", "ttm", "wttm"]},
    "limit": {"limit": 500},
    "labels": {"label_fraction": 0.1, "methods": ["hinton"]},
    "transfer classes": {"transfer_classes": "-3", "methods": ["hinton"]},
    "nothing held out": {"val_fraction": 0, "refit": False, "methods": ["hinton"]},
    "split seed": {"split_seed": 3, "methods": ["hinton"]},
    "epochs": {"epochs": 3, "lr": 0.05, "methods": ["hinton"]},
    "mixup": {"set": {"recipe.mixup": 0.8, "recipe.cutmix": 1.0, "recipe.mix_prob": 0.5}, "methods": ["hinton"]},
    "average": {"set": {"recipe.ema": 0.99, "recipe.ema_warmup": True}, "methods": ["hinton"]},
    "short batches left out": {"set": {"recipe.drop_last": True}, "methods": ["hinton"]},
    "dot": {"set": {"recipe.dot": 0.05, "recipe.nesterov": False}, "methods": ["hinton"]},
    "adamw": {"set": {"recipe.optimizer": "adamw", "recipe.lr": 0.001, "recipe.decay": "weights"}, "methods": ["hinton"]},
    "adam": {"set": {"recipe.optimizer": "adam", "recipe.schedule": "linear"}, "methods": ["hinton"]},
    "steps": {"set": {"recipe.schedule": "step", "recipe.milestones": [0.5, 0.75]}, "methods": ["hinton"]},
    "bfloat16": {"set": {"recipe.precision": "bfloat16"}, "methods": ["hinton"]},
    "crops": {"set": {"recipe.augment.crop": "pad", "recipe.augment.pad": 1, "recipe.augment.flip": True}, "methods": ["hinton"]},
    "colours": {"set": {"recipe.augment.brightness": 0.2, "recipe.augment.cutout": 2}, "methods": ["hinton"]},
    "teacher's recipe": {"set": {"teacher_recipe.epochs": 9, "teacher_recipe.dropout": 0.5}, "methods": ["hinton"]},
    "paper's recipe": {"recipe": "crd240", "methods": ["hinton", "at"]},
    "other networks": {"pairs": ["mlp_64_64/mlp_16_16"], "methods": ["hinton"]},
    "networks of the literature": {"pairs": ["resnet20/resnet8"], "recipe": "cifar16", "refit": False, "methods": ["hinton", "at"]},
    "folder": {"data": FOLDER, "pairs": ["resnet20/resnet8"], "recipe": "cifar16", "refit": False, "methods": ["hinton"]},
}


def planned_ids(options: Mapping[str, Any], place: Path) -> list[str]:
    """The ids of the teachers and students of a bench, sorted; unlike its runs, a bench's folder decides none."""
    data = {"data": f"folder:{drawn_folder(place)}"} if options.get("data") == FOLDER else {}
    planned = plan(bench_config({**options, **data, "results": str(place / "results")}, None))
    return sorted(each.run.id for each in (*planned.students, *planned.teachers.values()) if not each.provisional)


def drawn_folder(place: Path) -> Path:
    """A folder of two classes with ten images of 16 pixels each, the same every time."""
    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (place / "images" / name).mkdir(parents=True, exist_ok=True)
        for index in range(10):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(place / "images" / name / f"{index}.png")
    return place / "images"


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        found = {name: planned_ids(options, Path(place) / str(index)) for index, (name, options) in enumerate(CONFIGURATIONS.items())}
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
