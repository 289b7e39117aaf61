"""What is published of RepDistiller's networks, pairs and files, and what some methods must be handed for them.

`tests/golden2/facts.json` and `repdistiller_resnet8.pth` come from running the published code, as do the scores in
`checkpoint_resnet8.npz` and `repdistiller_networks.json` (in float64, from weights that a formula of their names gives).
"""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from kdzoo.contract.build_objective import build_objective
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.checkpoints import read_state
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.network import Network
from kdzoo.models.pairs import CRD, PAIRS
from kdzoo.models.request import parse_network
from kdzoo.models.stages import pair_stages
from kdzoo.models.weights import classes_of
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, TermSpec

GOLDEN = Path(__file__).resolve().parent.parent / "golden2"
FACTS = json.loads((GOLDEN / "facts.json").read_text())
CHECKPOINT = GOLDEN / "repdistiller_resnet8.pth"
PUBLISHED = json.loads((GOLDEN / "repdistiller_networks.json").read_text())
REPDISTILLER = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}


def network(name: str, *, side: int = 32, weights: Path | None = None, classes: int = 100) -> Network:
    spec = NetworkSpec(name=name, classes=classes, start="random")
    return build_network(spec, channels=3, side=side, seed=0, weights=weights, **REPDISTILLER)


@pytest.mark.parametrize("name", FACTS["networks"])
def test_a_network_of_the_literature_has_its_parameters_and_gives_the_maps_that_the_literature_taps(name):
    fact = FACTS["networks"][name]
    made = network(name)
    shapes = measure_shapes(made, (3, 32, 32))
    assert network_cost(made, (3, 32, 32)).parameters == fact["parameters"]
    assert [[s.channels, s.height, s.width] for s in shapes.stages] == fact["stages"]
    assert shapes.embedding == fact["embedding"]


def test_the_pairs_of_contrastive_representation_distillation_are_named_and_no_others_are_ascribed_to_it():
    assert [pair.name for pair in PAIRS.values() if pair.source == CRD] == FACTS["pairs"]


@cache
def shapes_of(name: str, side: int) -> Shapes:
    return measure_shapes(network(name, side=side), (3, side, side))


def assembled(method: str, teacher: str, student: str, side: int, pairing: str) -> tuple[torch.nn.Module, Shapes, Shapes]:
    """What a method builds for a pair as a run would have it, and the shapes of student and teacher."""
    learning, taught = (shapes_of(name, side) for name in (student, teacher))
    term = TermSpec(
        method=method,
        version=REGISTRY.get(method).card.version,
        hyperparameters=REGISTRY.create(method, {}).model_dump(mode="json"),
        coefficient=1.0,
    )
    facts = DataFacts(200, 100, torch.arange(200) % 100)
    pairs = pair_stages(learning, taught, pairing)
    made = build_objective(ObjectiveSpec(task=1.0, terms=(term,)), learning, taught, pairs, facts, label_smoothing=0.0, seed=0)
    return made.parts[method], learning, taught


MEASURE = {
    "ofa": lambda module: len(module),
    "vid": lambda module: len(module.means),
    "simkd": lambda module: module.projector[0].in_channels,
    "mgd": lambda module: module.generator[-1].out_channels,
}


@pytest.mark.parametrize("case", FACTS["assembled"], ids=lambda case: f"{case['method']}-{case['teacher']}-{case['student']}")
def test_a_method_is_handed_the_maps_that_its_published_code_reads(case):
    module, _, _ = assembled(case["method"], case["teacher"], case["student"], case["side"], case["pairing"])
    (expected,) = (case[key] for key in ("count", "reads", "gives") if key in case)
    assert MEASURE[case["method"]](module) == expected, case["what"]


@pytest.mark.parametrize("pairing", ["deep", "left"])
@pytest.mark.parametrize("name", ["resnet32x4/shufflenetv1", "wrn_40_2/mobilenetv2_half", "cifar_vgg13/resnet8"])
def test_how_stages_pair_is_nothing_to_a_method_of_one_map(name, pairing):
    teacher, student = name.split("/")
    module, learning, taught = assembled("mgd", teacher, student, 32, pairing)
    assert module.generator[-1].out_channels == taught.stages[-1].channels
    carries = getattr(module.carrier, "in_channels", taught.stages[-1].channels)
    assert carries == learning.stages[-1].channels


def test_both_last_stages_of_two_vggs_meet_from_either_end():
    learning, taught = (shapes_of(name, 32) for name in ("vgg8", "cifar_vgg13"))
    for pairing in ("deep", "left"):
        assert pair_stages(learning, taught, pairing) == ((0, 0), (1, 1), (2, 2), (3, 3))


def test_a_file_as_repdistiller_saves_it_gives_the_scores_that_its_network_gives():
    expected = np.load(GOLDEN / "checkpoint_resnet8.npz")
    request = parse_network(f"resnet8:{CHECKPOINT}")
    assert classes_of(read_state(request.path)) == 100
    made = network(request.name, weights=request.path).eval()
    with torch.no_grad():
        found = made.logits(torch.from_numpy(expected["images"])).double().numpy()
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-5, atol=1e-5 * np.abs(expected["logits"]).max())


def test_a_file_of_another_depth_is_refused_with_what_is_missing():
    with pytest.raises(InputError, match=r"do not fit the network: .*missing: stage1\.1\.residual"):
        network("resnet14", weights=CHECKPOINT)


def by_formula(name: str, shape: list[int]) -> torch.Tensor:
    """An entry of a state dict, from its name: the same numbers that the published networks were given."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        drawn = 1 + 0.1 * np.abs(drawn)
    elif name.endswith(("running_mean", "bias")):
        drawn = 0.1 * drawn
    else:
        drawn = 1 + 0.1 * drawn if len(shape) == 1 else drawn * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(drawn).float()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_kind_of_published_network_is_read_under_its_own_names(name, tmp_path):
    state = {entry: by_formula(entry, shape) for entry, shape in PUBLISHED[name]["entries"].items()}
    torch.save({"epoch": 240, "model": state, "accuracy": torch.tensor(75.0)}, tmp_path / "ckpt_epoch_240.pth")
    made = network(name, weights=tmp_path / "ckpt_epoch_240.pth").eval()
    images = torch.from_numpy(np.load(GOLDEN / "checkpoint_resnet8.npz")["images"][:2])
    with torch.no_grad():
        found = made.logits(images)[:, :10].numpy()
    expected = np.array(PUBLISHED[name]["logits"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_state_dict_of_names_that_nobody_knows_is_left_as_it_is():
    made = network("resnet8").model
    unknown = {"layer1.0.conv1.weight": torch.zeros(1), "extra.weight": torch.zeros(1)}
    assert made.named_as_here(unknown) is unknown
    own = made.state_dict()
    assert made.named_as_here(own) is own
