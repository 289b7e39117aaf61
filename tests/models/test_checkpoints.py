"""Checkpoints as training scripts write them: what is found in them, what is ignored and told, what is never run."""

import argparse
import collections
import json
import os
import pickle
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from kdzoo.errors import InputError
from kdzoo.models.checkpoints import class_names_in, read_checkpoint, read_state
from kdzoo.models.weights import load_state

STATE = {name: value + 1 for name, value in timm.create_model("test_resnet", num_classes=4).state_dict().items()}


def under(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value.clone() for name, value in STATE.items()}


def loaded(file: Path, key: str | None = None) -> dict[str, torch.Tensor]:
    network = timm.create_model("test_resnet", num_classes=4)
    load_state(network, read_state(file, key=key), file.name)
    return network.state_dict()


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "model._orig_mod.", "model.module.", "_orig_mod.module.", "net.", "backbone."])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_names_behind_any_row_of_usual_prefixes_load(tmp_path, prefix, ending):
    file = tmp_path / f"w.{ending}"
    (torch.save if ending == "pth" else save_file)(under(prefix), file)
    assert same(loaded(file))


@pytest.mark.parametrize(
    "wrap", [lambda s: {"net": s, "acc": 93.1}, lambda s: {"model_ema": {"module": s}}, lambda s: {"model": {"state_dict": s}}]
)
def test_weights_below_another_key_or_two_load(tmp_path, wrap):
    torch.save(wrap(under("module.")), tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"))


class Wrapper(nn.Module):
    """A network of a user's own, all of whose names begin with a prefix that wrappers use too."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(2))


def test_a_network_whose_own_names_begin_with_a_prefix_loads_from_its_own_file_and_from_its_parts(tmp_path):
    own = {name: value + 1 for name, value in Wrapper().state_dict().items()}
    torch.save(own, tmp_path / "own.pth")
    torch.save({name.removeprefix("backbone."): value for name, value in own.items() if "loss" not in name}, tmp_path / "part.pth")
    for file in tmp_path.iterdir():
        network = Wrapper()
        load_state(network, read_state(file), file.name)
        assert torch.equal(network.backbone.weight, own["backbone.weight"])


def test_a_criterion_and_counters_beside_the_weights_are_passed_over_and_told(tmp_path):
    beside = {"criterion.weight": torch.ones(4), "model.total_ops": torch.zeros(1), "model.bn1.total_params": torch.zeros(1)}
    torch.save({"state_dict": {**under("model."), **beside}}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"))
    (told,) = read_checkpoint(tmp_path / "w.pth").remarks("mine")
    assert "3 entries" in told
    assert "criterion.weight" in told


@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema"])
def test_of_raw_and_averaged_weights_the_raw_are_taken_and_told_and_the_average_is_chosen_by_its_key_or_as_ema(tmp_path, averaged):
    average = {name: value * 2 for name, value in STATE.items()}
    torch.save({averaged: average, "state_dict": STATE}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"))
    (told,) = read_checkpoint(tmp_path / "w.pth").remarks("mine")
    assert "'state_dict' is used" in told
    assert f"@weights={averaged}" in told
    for key in ("ema", averaged):
        assert torch.equal(loaded(tmp_path / "w.pth", key)["fc.weight"], average["fc.weight"])
    with pytest.raises(InputError, match=f"no weights under 'swa'.*it has: state_dict, {averaged}"):
        read_state(tmp_path / "w.pth", key="swa")


def test_one_set_of_weights_is_taken_without_a_word(tmp_path):
    torch.save({"state_dict_ema": STATE, "epoch": 3}, tmp_path / "w.pth")
    assert read_checkpoint(tmp_path / "w.pth").remarks("mine") == ()
    assert same(loaded(tmp_path / "w.pth"))


PLAIN = {
    "options": argparse.Namespace(lr=0.1, data=Path("/data"), nested=argparse.Namespace(betas=(0.9, 0.99))),
    "numpy float": np.float64(71.2),
    "numpy float32": np.float32(0.5),
    "numpy int": np.int64(3),
    "numpy bool": np.bool_(True),
    "defaultdict": collections.defaultdict(list, {"loss": [1.0, 2.0]}),
    "path": Path("/data/x"),
    "windows path": PureWindowsPath("C:/data"),
    "counter": collections.Counter("aab"),
}


@pytest.mark.parametrize("what", PLAIN)
def test_what_scripts_pickle_beside_their_weights_loads(tmp_path, what):
    torch.save({"state_dict": STATE, "about": PLAIN[what]}, tmp_path / "w.pth")
    assert same(loaded(tmp_path / "w.pth"))


class Runs:
    """Pickled as a call that leaves a file behind."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def attacks(mark: str) -> dict[str, object]:
    touch = Runs(os.mkdir, mark)
    within = pickle.dumps(touch)
    return {
        "a call": touch,
        "a call within options": argparse.Namespace(lr=touch),
        "eval": Runs(eval, f"__import__('os').mkdir({mark!r})"),
        "a factory": Runs(collections.defaultdict, os.mkdir),
        "an attribute": Runs(getattr, Path(mark), "mkdir"),
        "a numpy scalar of objects": Runs(np.float64(1).__reduce__()[0], np.dtype("O"), within),
        "a numpy load": Runs(np.load, mark),
    }


@pytest.mark.parametrize("what", attacks(""))
def test_no_code_in_a_pickle_is_run_whatever_it_hides_in(tmp_path, what):
    mark = tmp_path / "code was run"
    torch.save({"state_dict": STATE, "about": attacks(str(mark))[what]}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        read_state(tmp_path / "w.pth")
    assert not mark.exists()


def test_a_checkpoint_that_is_no_mapping_or_holds_no_weights_is_refused_in_words(tmp_path):
    for content in ([1, 2], {"state_dict": {}}, {"epoch": 3}, {"state_dict": {"x": {"y": torch.ones(1)}}}, torch.ones(3)):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(InputError, match="expected a state dict, or one under state_dict"):
            read_state(tmp_path / "w.pth")


@pytest.mark.parametrize(
    "content",
    [
        {"class_names": ["ant", "bee"]},
        {"classes": ("ant", "bee")},
        {"CLASSES": ["ant", "bee"]},
        {"class_to_idx": {"bee": 1, "ant": 0}},
        {"meta": {"categories": ["ant", "bee"]}},
        {"class_names": json.dumps(["ant", "bee"])},
        {"classes": "2", "class_names": json.dumps(["ant", "bee"])},
    ],
)
def test_the_names_of_the_classes_in_a_checkpoint(content):
    assert class_names_in(content) == ("ant", "bee")


@pytest.mark.parametrize("content", [{}, {"classes": 2}, {"classes": "2"}, {"labels": torch.ones(3)}, {"class_names": []}, {"meta": 3}])
def test_no_names_are_made_up(content):
    assert class_names_in(content) is None
