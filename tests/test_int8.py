"""A graph in 8 bits: what is quantised and what stays in float, and that what is said of it is what it does."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from scipy.stats import entropy

from kdzoo.data.canonical import Raw, make_dataset
from kdzoo.data.dataset import Subset
from kdzoo.data.split import split
from kdzoo.data.views import evaluation_view
from kdzoo.models.build import build_network
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import DataSpec, NetworkSpec
from kdzoo.suite.export.graph import graph_scores, open_graph, write_graph
from kdzoo.suite.export.int8 import Measured, int8_line, int8_words, write_int8
from kdzoo.suite.export.qat import fine_tune, tuning_recipe
from kdzoo.suite.export.quantise import Quantisation, divergence, layers_in_float, layers_of, quantise
from kdzoo.suite.export.reading import reading_of
from kdzoo.suite.export.student import Student

RECIPE = Recipe(epochs=1, batch_size=8, lr=0.1, augment=Augment())


@pytest.fixture(scope="module")
def student() -> Student:
    """An untrained network whose classes are what it says itself, of patches with the statistics of images."""
    random = np.random.default_rng(0)
    coarse = torch.from_numpy(random.integers(0, 256, (240, 3, 4, 4)).astype(np.float32))
    images = torch.nn.functional.interpolate(coarse, size=16, mode="bicubic").clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    labels = np.arange(240) % 4
    data = make_dataset("patches", Raw((images[:160], labels[:160]), (images[160:], labels[160:])), "made up")
    spec = NetworkSpec(name="resnet20", classes=4)
    network = build_network(spec, channels=3, side=16, mean=data.mean, std=data.std, seed=3).eval()
    with torch.no_grad():
        network.classifier.weight *= 20
        network.classifier.bias -= network.logits(data.train.images).mean(0)
    return Student(network, spec, data, RECIPE, {}, "trained by nobody", False)


@pytest.fixture(scope="module")
def graph(student, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "student.onnx"
    write_graph(path, student, reading_of(student), {}, pixels=False)
    return path


def inputs(student: Student, images: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return student.body.normalise(evaluation_view(images, RECIPE.augment)).numpy()


def test_weights_are_int8_by_channel_and_activations_uint8(student, graph, tmp_path):
    batch = inputs(student, student.dataset.train.images[:64])
    found = quantise(graph, [batch], [batch])
    (tmp_path / "q.onnx").write_bytes(found.content)
    model = onnx.load(tmp_path / "q.onnx")
    constants = {one.name: one for one in model.graph.initializer}
    channels = {tuple(one.dims) for one in constants.values() if one.data_type == TensorProto.INT8 and len(one.dims) == 4}
    assert (16, 3, 3, 3) in channels or found.how.first_in_float
    scales_of_weights = [
        numpy_helper.to_array(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and len(constants[node.input[0]].dims) == 4
    ]
    assert scales_of_weights
    assert all(scale.ndim == 1 and len(np.unique(scale)) > 1 for scale in scales_of_weights)
    zeros = [constants[node.input[2]].data_type for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert set(zeros) == {TensorProto.UINT8}
    assert len(found.content) < 0.5 * graph.stat().st_size


def test_the_layers_in_float_are_the_first_and_the_classifier(graph):
    layers = layers_of(graph)
    assert len(layers) >= 20
    assert layers_in_float(graph, 0) == []
    assert layers_in_float(graph, 2) == [*layers[:2], layers[-1]]
    last = {node.name: node for node in onnx.load(graph).graph.node}[layers[-1]]
    assert last.op_type in ("Gemm", "MatMul")


def test_the_divergence_is_that_of_the_probabilities():
    random = np.random.default_rng(1)
    own, other = (random.normal(size=(7, 5)).astype(np.float32) * 3 for _ in range(2))
    probabilities = [np.exp(one.astype(float)) / np.exp(one.astype(float)).sum(1, keepdims=True) for one in (own, other)]
    assert divergence(own, other) == pytest.approx(entropy(*probabilities, axis=1).mean())
    assert divergence(own, own + 3) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_what_is_said_of_8_bits_is_what_both_graphs_do_on_the_test_images(student, graph, tmp_path):
    data = student.dataset
    splits = split(data, DataSpec(name=data.name, fingerprint=data.fingerprint, classes=4, val_fraction=0.0))
    found = write_int8(tmp_path / "q.onnx", graph, student, splits, pixels=False)
    given, targets = inputs(student, data.test.images), data.test.targets.numpy()
    named8, named32 = (graph_scores(open_graph(file), given).argmax(1) for file in (tmp_path / "q.onnx", graph))
    assert (found.images, found.right, found.right_float) == (80, (named8 == targets).sum(), (named32 == targets).sum())
    assert found.same == (named8 == named32).sum() > 60
    assert (found.size, found.size_float) == ((tmp_path / "q.onnx").stat().st_size, graph.stat().st_size)
    assert found.low <= -found.loss <= found.high
    assert found.calibrated == 128
    words = int8_words(found)
    assert f"| size | {found.size / 1e6:.2f} MB | {found.size_float / 1e6:.2f} MB |" in words
    assert re.search(r"calibrated on 128 training images", words)


def first(part: Subset, count: int) -> Subset:
    return Subset(part.images[:count], part.targets[:count])


@pytest.mark.parametrize(("images", "calibrated"), [(5, 5), (16, 16), (88, 80), (160, 128)])
def test_ranges_come_from_whole_batches_of_training_images(student, graph, tmp_path, images, calibrated):
    splits = split(student.dataset, DataSpec(name="patches", fingerprint=student.dataset.fingerprint, classes=4, val_fraction=0.0))
    few = replace(splits, train=first(splits.train, images), test=first(splits.test, 8))
    found = write_int8(tmp_path / "q.onnx", graph, student, few, pixels=False)
    assert found.calibrated == calibrated
    assert onnx.load(tmp_path / "q.onnx").graph.node


@pytest.mark.slow
def test_training_for_8_bits_brings_the_quantised_graph_nearer_to_its_teacher(student, tmp_path):
    """The student is its teacher with weights that are off by a fifth."""
    off = replace(
        student,
        network=copy.deepcopy(student.network),
        recipe=Recipe(epochs=1, batch_size=8, lr=0.01, optimizer="adamw", augment=Augment()),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in off.network.parameters():
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
    data = student.dataset
    splits = split(data, DataSpec(name=data.name, fingerprint=data.fingerprint, classes=4, val_fraction=0.0))
    before = {name: value.clone() for name, value in off.network.state_dict().items()}
    tuned = fine_tune(off, splits, student.network)
    calibration, given = (inputs(student, part.images) for part in (data.train, data.test))
    expected = student.network.logits(data.test.images).detach().numpy()
    apart = {}
    for name, one in (("off", off), ("tuned", tuned)):
        write_graph(tmp_path / "student.onnx", one, reading_of(one), {}, pixels=False)
        (tmp_path / "q.onnx").write_bytes(quantise(tmp_path / "student.onnx", [calibration[:128]], [calibration[128:]]).content)
        apart[name] = divergence(expected, graph_scores(open_graph(tmp_path / "q.onnx"), given))
    assert apart["tuned"] < 0.7 * apart["off"], apart
    after = tuned.network.state_dict()
    assert all(torch.equal(value, off.network.state_dict()[name]) for name, value in before.items()), "not its copy was trained"
    statistics = {name for name in before if "running" in name or "num_batches" in name}
    assert statistics
    assert {name for name, value in after.items() if torch.equal(value, before[name])} == statistics


def test_training_for_8_bits_is_a_tenth_of_the_training_at_a_tenth_of_the_rate_that_falls_to_zero():
    recipe = Recipe(epochs=240, batch_size=64, lr=0.05, schedule="step", milestones=(0.5,), ema=0.99, warmup=0.1)
    tuning = tuning_recipe(recipe, 50_000)
    assert (tuning.epochs, tuning.batch_size, tuning.schedule, tuning.ema) == (24, 64, "cosine", None)
    assert tuning.lr == pytest.approx(0.005)
    assert tuning_recipe(recipe.model_copy(update={"epochs": 1}), 128).epochs == 50, "100 steps of two an epoch"


def test_what_trained_for_8_bits_is_said():
    found = replace(measured(895), teacher="resnet56")
    assert int8_words(found).startswith("Quantisation-aware training under resnet56, then quantisation (weights int8 by channel")
    assert int8_line(found).startswith("trained for it under resnet56; in 8 bits top-1 89.50 %")


def measured(right: int) -> Measured:
    how = Quantisation(1, "MinMax")
    return Measured(how, 128, 256, 1000, right, 900, -0.03, 0.01, 950, 5_000_000, 19_000_000, 4.0, 9.0, "idle")


def test_a_loss_of_more_than_half_a_point_is_said_plainly():
    assert int8_words(measured(888)).startswith("**8 bits cost 1.2 points of accuracy** on the test images; ")
    assert int8_line(measured(888)).startswith("8 bits cost 1.2 points of accuracy; in 8 bits top-1 88.80 % [")
    for right in (895, 900, 905):
        assert "cost" not in int8_words(measured(right)) + int8_line(measured(right))
    assert "chosen on 256 other training images)" in int8_words(measured(900))
    assert "chosen on the same images)" in int8_words(replace(measured(900), chosen_on=0)), "where there are no others"
    assert "difference +0.00 points [-3.00, +1.00]" in int8_line(measured(900))
    assert "the first layer and the classifier in float32, ranges of activations by MinMax" in int8_words(measured(900))
