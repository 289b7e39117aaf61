"""The bench of resnet34 and resnet18 on ImageNet, by its own file, on a folder of 48 JPEG files that are decoded while training."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from warm_python import run_warm

from kdzoo.files import CONFIGS
from kdzoo.runs.store import Store
from kdzoo.suite.plan.recipe_files import recipe_file

pytestmark = pytest.mark.slow


def write_photos(folder: Path) -> Path:
    """Parts of two photographs as train/ and val/, a sub-folder for each of them: 16 and 8 JPEG files, 100 to 150 by 90 to 130 pixels."""
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        for number in range(24):
            part = folder / ("train" if number < 16 else "val") / name
            part.mkdir(parents=True, exist_ok=True)
            top, left = number // 6 * 90, number % 6 * 95
            height, width = 130 - number % 5 * 10, 150 - number % 3 * 25
            Image.fromarray(photo[top : top + height, left : left + width]).save(part / f"{number}.jpg", quality=95)
    return folder


@pytest.mark.parametrize(
    ("timm_augments", "processes"),
    [(False, 1), (True, 1), (False, 2)],
    ids=["as published", "with timm's augmentation", "by two processes"],
)
def test_the_file_runs_on_a_folder_whose_images_are_never_all_in_memory(tmp_path, timm_augments, processes):
    photos, weights = write_photos(tmp_path / "photos"), tmp_path / "resnet34.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("resnet34", num_classes=2).state_dict(), weights)
    file = CONFIGS / "benches" / "imagenet-r34-r18.yaml"
    words = f"bench -c {file} --data folder:{photos} --teacher resnet34.tv_in1k:{weights} --methods hinton,at --epochs 1 --image-cache 1KB"
    words += f" --set recipe.batch_size=16 --set recipe.augment.size=32 --allow-chance-teacher --results {tmp_path} -j 1"
    words += f" --processes-per-run {processes}"
    augment = {"auto_augment": "rand-m9-mstd0.5-inc1", "erase": 0.25, "erase_fill": "noise"} if timm_augments else {}
    words += "".join(f" --set recipe.augment.{key}={value}" for key, value in augment.items())
    done = run_warm([sys.executable, "-m", "kdzoo", *words.split()], timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = Store(tmp_path / "imagenet-r34-r18")
    results = [runs.run(run_id).result() for run_id in runs.ids()]
    assert sorted(result["id"].rpartition("-")[0] for result in results) == ["at", "hinton", "none"]
    for result in results:
        recipe = runs.run(result["id"]).read_plan()[0].recipe
        assert (recipe.optimizer, recipe.lr, recipe.weight_decay, recipe.augment.min_area) == ("sgd", 0.1, 1e-4, 0.08)
        assert {key: getattr(recipe.augment, key) for key in augment} == augment
        assert result["train"]["samples"] == 32
        assert result["environment"]["processes"] == (processes if processes > 1 else None)
        assert result["last"]["test"]["top1"] in [count / 16 for count in range(17)]


def test_its_recipe_is_that_of_the_published_tables():
    """100 epochs of batches of 256, the rate a tenth at 30, 60 and 90: https://github.com/yoshitomo-matsubara/torchdistill."""
    recipe = recipe_file("imagenet").resolve("resnet18", {})
    assert (recipe.epochs, recipe.batch_size, recipe.milestones, recipe.gamma) == (100, 256, (0.3, 0.6, 0.9), 0.1)
