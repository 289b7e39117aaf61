"""What makes a distillation of few photographs work: length in steps, validation, heads that start from frozen features, image sizes."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from warm_python import run_warm

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.needs import Pass
from kdzoo.contract.shapes import DataFacts
from kdzoo.data.dataset import Subset
from kdzoo.data.folder import load_folder
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement
from kdzoo.models.predict import CPU_BATCH, EVALUATION_PIXELS, GPU_BATCH, batch_of, predict
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec, ObjectiveSpec, Run
from kdzoo.runs.store import RunFolder
from kdzoo.suite.distill.image_size import choose_size, clearly_better, enlarged_note
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.training import latency
from kdzoo.training.head import regression, start_head
from kdzoo.training.member import Member

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("images", "epochs"), [(131, 250), (65, 500), (20, 500), (700, 50), (100_000, 30)])
def test_few_images_are_trained_on_for_five_hundred_steps_and_many_for_the_epochs_of_the_recipe(images, epochs):
    """131 images are two batches of 64 and three images that an epoch leaves out; 700 are ten batches; 20 are one batch of 20."""
    assert recipe_file("distill").resolve("resnet18", {}, images=images).epochs == epochs


def test_epochs_that_are_asked_for_are_the_epochs():
    assert recipe_file("distill").resolve("resnet18", {"epochs": 3}, images=131).epochs == 3
    assert recipe_file("smoke").resolve("resnet18", {}, images=131).epochs == recipe_file("smoke").recipe["epochs"]


@pytest.mark.parametrize(("images", "held_out"), [(175, 44), (300, 50), (500, 50), (4000, 400)])
def test_validation_is_large_enough_to_judge_by(images, held_out):
    assert round(recipe_file("distill").validation_share(images) * images) == held_out


def test_a_teacher_of_other_classes_is_fine_tuned_gently_from_a_probe_and_not_mixed():
    recipe = recipe_file("distill")
    gentle = recipe.variant(trained=True, fine_tuned=True).resolve("resnet18", {}, images=131)
    usual = recipe.variant(trained=False, fine_tuned=False).resolve("resnet18", {}, images=131)
    assert (gentle.head, usual.head) == ("probe", "random")
    assert (gentle.learns, usual.learns) == ("head", "all")
    assert gentle.epochs < usual.epochs / 10
    assert (gentle.mixes, usual.mixes) == (False, True)


def test_recipes_without_the_new_keys_have_the_ids_that_they_had():
    assert not {"drop_last", "head", "learns", "view_epochs"} & recipe_file("smoke").resolve("resnet18", {}).model_dump().keys()
    whole = recipe_file("distill").variant(trained=True, fine_tuned=False).resolve("x", {}).model_dump()
    assert {"drop_last", "head", "view_epochs"} <= whole.keys()


@pytest.fixture(scope="module")
def digits() -> Subset:
    bunch = load_digits(n_class=5)
    pixels = torch.from_numpy(np.round(bunch.images * 255 / 16).astype(np.uint8))[:, None].expand(-1, 3, -1, -1)
    return Subset(pixels[:300].repeat_interleave(4, 2).repeat_interleave(4, 3), torch.from_numpy(bunch.target[:300]).long())


def test_a_probe_is_the_logistic_regression_of_scikit_learn(digits):
    random = np.random.default_rng(0)
    features = random.normal(size=(90, 6)) + 3 * np.eye(3, 6)[np.arange(90) % 3]
    weight, bias = regression(features, np.arange(90) % 3, classes=3)
    scale = np.sqrt((features**2).mean())
    scores = [LogisticRegression(C=c, max_iter=1000).fit(features / scale, np.arange(90) % 3) for c in (1e-4, 1e-3, 1e-2, 1e-1, 1)]
    ours = features @ weight.T + bias
    assert any(np.allclose(ours, one.decision_function(features / scale), atol=1e-3) for one in scores)


def test_a_class_without_an_image_is_never_named():
    features = np.random.default_rng(0).normal(size=(40, 3))
    weight, bias = regression(features, np.arange(40) % 2 * 2, classes=3)
    assert set((features @ weight.T + bias).argmax(1)) == {0, 2}


def test_a_head_that_starts_as_a_probe_knows_the_classes_and_nothing_else_has_moved(digits):
    network = build_network(NetworkSpec(name="test_resnet", classes=5), channels=3, side=32, mean=[0.5], std=[0.5], seed=0, head="fresh")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert start_head(network, digits, Augment(size=32), CPU)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.fc.weight", "model.fc.bias"}
    right = predict(network, digits, Augment(size=32), CPU).argmax(1) == digits.targets
    assert right.double().mean() > 0.9


def test_where_the_head_alone_learns_nothing_below_it_moves(digits):
    """Neither weights nor running statistics, though batches go through the network in training."""
    network = build_network(NetworkSpec(name="test_resnet", classes=5), channels=3, side=32, mean=[0.5], std=[0.5], seed=0, head="fresh")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recipe = Recipe(epochs=1, batch_size=8, lr=0.1, learns="head")
    member = member_with(recipe, network)
    for step in range(2):
        batch = Batch(
            inputs=digits.images[:8],
            targets=digits.targets[:8],
            soft_targets=None,
            index=torch.arange(8),
            clock=Progress(0, 1, step, 2),
            generator=torch.Generator(),
        )
        member.learn(member.losses({Pass.FIRST: batch.inputs}, None, batch, 8), 8, 2)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"model.fc.weight", "model.fc.bias"}


def member_with(recipe: Recipe, network: Network) -> Member:
    """A run without a teacher on a network."""
    data = DataSpec(name="digits", fingerprint="0", classes=5)
    spec = NetworkSpec(name="test_resnet", classes=5)
    run = Run(student=spec, teacher=None, data=data, recipe=recipe, objective=ObjectiveSpec(task=1.0), seed=0)
    shapes = measure_shapes(network, (3, 32, 32))
    facts = DataFacts(300, 5, torch.zeros(300, dtype=torch.int64))
    objective = build_objective(run.objective, shapes, None, (), facts, label_smoothing=0.0, seed=0)
    return Member(
        run,
        RunFolder(Path("unused") / run.id),
        network,
        network_cost(network, (3, 32, 32)),
        objective,
        Placement(WorkerOptions(teacher_cache=0)),
    )


def test_images_that_are_enlarged_are_told_with_what_that_costs(tmp_path):
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/notes.txt").write_text("no image")
    assert enlarged_note(tmp_path / "photos", 128) is None
    Image.new("RGB", (32, 32)).save(tmp_path / "photos/cat/0.png")
    assert enlarged_note(tmp_path / "photos", 128) == (
        "images of 32x32 are enlarged to 128 (16 times the pixels); --image-size sets another side"
    )
    assert enlarged_note(tmp_path / "photos", 32) is None
    Image.new("RGB", (64, 40)).save(tmp_path / "photos/cat/1.png")
    assert enlarged_note(tmp_path / "photos", 128).startswith("images of at most 64x40 are enlarged to 128 (6.4 times the pixels)")
    Image.new("RGB", (300, 200)).save(tmp_path / "photos/cat/2.png")
    assert enlarged_note(tmp_path / "photos", 128) is None


def test_a_size_is_chosen_where_a_larger_one_is_not_clearly_better(digits):
    """At 2 pixels there is little left of a digit; those of 8 pixels enlarged to 32 have no more at 32 than at 16."""

    def network_at(side: int):
        spec = NetworkSpec(name="test_resnet", classes=5)
        return build_network(spec, channels=3, side=side, mean=[0.5], std=[0.5], seed=0, head="fresh")

    chosen = choose_size(network_at, "test_resnet", digits, [2, 16, 28])
    assert chosen.side == 16
    assert [side for side, _ in chosen.tried] == [2, 16, 28]
    assert "image size 16" in str(chosen)

    def gone(side: int):
        assert side == 2, "what was found is remembered"
        return network_at(side)

    assert choose_size(gone, "test_resnet", digits, [2, 16, 28]) == chosen


def test_clearly_better_is_two_standard_errors_of_the_paired_difference():
    """10 images won and 2 lost of 100 differ by 0.08 with a standard error of 0.0339: 2.4 of them; 7 and 3 by 1.3."""
    smaller = np.zeros(100, dtype=bool)
    smaller[:2] = True
    larger = np.zeros(100, dtype=bool)
    larger[2:12] = True
    assert clearly_better(larger, smaller)
    smaller[:3], larger[:] = True, False
    larger[3:10] = True
    assert not clearly_better(larger, smaller)


def test_a_batch_of_photographs_has_no_more_pixels_than_one_of_small_images():
    small, large = (Subset(torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.zeros(1)) for side in (32, 256))
    network = build_network(NetworkSpec(name="test_resnet", classes=5), channels=3, side=32, mean=[0.5], std=[0.5], seed=0)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert batch_of(network, small, Augment(), cpu) == CPU_BATCH
    assert batch_of(network, small, Augment(), gpu) == GPU_BATCH
    assert batch_of(network, large, Augment(), gpu) == EVALUATION_PIXELS // 256**2
    network.image_size = 224
    assert batch_of(network, small, Augment(), gpu) == EVALUATION_PIXELS // 224**2


@pytest.mark.slow
def test_the_memory_of_photographs_at_256_pixels_stays_bounded():
    """124 photographs take 24 MB; in one batch a ResNet's first map of them alone takes 0.5 GB, and its normalised copy as much."""
    code = """
import resource, torch
from kdzoo.data.dataset import Subset
from kdzoo.models.build import build_network
from kdzoo.models.predict import predict
from kdzoo.runs.recipe import Augment
from kdzoo.runs.spec import NetworkSpec
torch.set_num_threads(1)
network = build_network(NetworkSpec(name="resnet10t", classes=5), channels=3, side=256, mean=[0.5], std=[0.5], seed=0)
part = Subset(torch.zeros(124, 3, 256, 256, dtype=torch.uint8), torch.zeros(124, dtype=torch.int64))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
predict(network, part, Augment(), torch.device("cpu"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = run_warm([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 700, "megabytes"


def test_files_that_cannot_be_read_are_skipped_counted_and_listed(tmp_path):
    folder = tmp_path / "photos"
    for label in range(2):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((9, 9, 3), 40 * number + label, dtype=np.uint8)).save(folder / f"class{label}" / f"{number}.png")
    whole = load_folder(folder, 8)
    (folder / "class0" / "torn.png").write_bytes((folder / "class0" / "1.png").read_bytes()[:40])
    (folder / "class1" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match=r"gone\.jpg"):
        load_folder(folder, 8)
    (folder / "class0" / "empty.png").touch()
    (folder / "class0" / "text.png").write_text("no image")
    read = load_folder(folder, 8, skip_unreadable=True)
    assert read.fingerprint == whole.fingerprint
    (note,) = [note for note in read.notes if "unreadable" in note]
    assert note.startswith(
        "skipped 4 unreadable files: class0/empty.png (an empty file); class0/text.png (not an image); class0/torn.png ("
    )
    assert "class1/gone.jpg (a broken link)" in note
    assert "0x" not in note, "the same folder has the same note each time"
    streamed = load_folder(folder, 8, image_cache=1, skip_unreadable=True)
    assert streamed.fingerprint == whole.fingerprint
    for number in range(6):
        (folder / "class1" / f"{number}.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="none of the images of class1 can be read"):
        load_folder(folder, 8, skip_unreadable=True)


@pytest.mark.usefixtures("all_timings")
def test_a_latency_is_the_shortest_of_many_and_the_load_is_told(monkeypatch):
    network = build_network(NetworkSpec(name="test_resnet", classes=5), channels=3, side=32, mean=[0.5], std=[0.5], seed=0)
    ticks = iter(np.cumsum([0.0, *([0.5, 0.001] * 400)]).tolist())
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(latency, "LONGEST_SECONDS", 1e9)
    assert latency.milliseconds(network, (3, 32, 32), 1, CPU) == pytest.approx(1.0)
    assert "may be too long" in str(latency.Load(3.2, 2))
    assert str(latency.Load(0.4, 2)) == "load average 0.4 on 2 cores"
