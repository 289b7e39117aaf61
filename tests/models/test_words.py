"""A network in a user's words: paths of all kinds, normalisations, and which of several sets of weights."""

import pytest
import torch

from kdzoo.errors import InputError
from kdzoo.models.normalisation import USUAL, in_words, normalisation_of, usual_for
from kdzoo.models.request import parse_network, pretrained_by_default
from kdzoo.runs.spec import NetworkSpec, Normalisation


@pytest.mark.parametrize("place", ["a@b: c", "x@32"])
def test_a_path_may_hold_whatever_a_file_system_allows(tmp_path, place):
    file = tmp_path / place / "my_resnet18.pth"
    file.parent.mkdir()
    torch.save({"fc.weight": torch.ones(3, 2)}, file)
    for text, size in ((f"resnet18:{file}", None), (f"resnet18:{file}@64", 64), (str(file), None), (f"{file}@64", 64)):
        found = parse_network(text)
        assert (found.name, found.start, found.path, found.image_size) == ("resnet18", "file", file, size)


def test_a_file_whose_name_ends_like_an_option_is_that_file(tmp_path):
    file = tmp_path / "weights@64"
    file.write_bytes(b"x")
    found = parse_network(f"resnet18:{file}")
    assert (found.path, found.image_size) == (file, None)
    assert parse_network(f"resnet18:{file}@96").image_size == 96


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({}, tmp_path / "w.pth")
    assert parse_network("resnet18:~/w.pth").path == tmp_path / "w.pth"
    with pytest.raises(InputError, match=r"no such file: ~/v\.pth"):
        parse_network("resnet18:~/v.pth")
    with pytest.raises(InputError, match="no such file: ~nobody-of-this-name/v"):
        parse_network("resnet18:~nobody-of-this-name/v.pth")


def test_options_stand_in_any_order_and_none_twice(tmp_path):
    torch.save({}, tmp_path / "w.pth")
    found = parse_network(f"resnet18:{tmp_path}/w.pth@weights=ema@64@norm=0.5,0.4,0.3/0.25,0.2,0.1@small")
    assert (found.weights, found.image_size, found.norm, found.stem) == ("ema", 64, "0.5,0.4,0.3/0.25,0.2,0.1", "small")
    with pytest.raises(InputError, match="@32: given twice"):
        parse_network("resnet18@32@64")
    with pytest.raises(InputError, match="unknown 'imagnet'; did you mean 'imagenet'"):
        parse_network("resnet18:pretrained@norm=imagnet")
    for wrong in ("resnet18@tiny", "resnet18@norm=", "resnet18@mean=3", "resnet18@0"):
        with pytest.raises(InputError, match=r"expected @small or @SIZE, @norm=.*, @weights=KEY, @columns=NAME, @layers=N, got @"):
            parse_network(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("resnet50", "resnet50:pretrained"),
        ("resnet50@96@norm=imagenet", "resnet50:pretrained@96@norm=imagenet"),
        ("resnet50:random@96", "resnet50:random@96"),
        ("none-0123456789ab", "none-0123456789ab"),
    ],
)
def test_a_bare_name_becomes_pretrained_with_its_options(text, found):
    assert pretrained_by_default(text) == found


def test_a_normalisation_in_words_and_in_numbers():
    assert normalisation_of("data") is None
    assert normalisation_of("0.5") == normalisation_of("0.5/0.5") == normalisation_of("0.5,0.5,0.5/0.5,0.5,0.5") == USUAL["0.5"]
    assert normalisation_of("0.485,0.456,0.406/0.229,0.224,0.225") == USUAL["imagenet"]
    assert normalisation_of("0.1/0.3") == Normalisation(mean=(0.1,), std=(0.3,))
    assert [in_words(norm) for norm in (USUAL["imagenet"], Normalisation(mean=(0.1,), std=(0.3,)))] == ["imagenet", "0.1/0.3"]
    for wrong, words in {
        "0.5/0": "std: expected a number > 0",
        "1,2/3": "as many means as deviations",
        "1..2": "expected MEAN/STD",
    }.items():
        with pytest.raises(InputError, match=words):
            normalisation_of(wrong)


def test_pixels_and_centred_are_what_their_names_say():
    x = torch.tensor([0.0, 128.0, 255.0])
    for name, expected in {"unit": x / 255, "0.5": x / 127.5 - 1, "pixels": x, "centred": x - 128}.items():
        norm = USUAL[name]
        assert torch.allclose((x / 255 - norm.mean[0]) / norm.std[0], expected, atol=1e-4)


def test_grey_images_are_offered_no_normalisation_of_three_channels():
    assert set(usual_for(1)) == {"unit", "0.5", "mnist", "pixels", "centred"}
    assert {"imagenet", "cifar10", "cifar100", "clip"} <= set(usual_for(3))
    own = Normalisation(mean=(0.1, 0.2, 0.3), std=(0.4, 0.4, 0.4))
    assert usual_for(3, own)["0.1,0.2,0.3/0.4,0.4,0.4"] == own
    assert usual_for(3, USUAL["imagenet"]) == usual_for(3)
    assert usual_for(1, own) == usual_for(1)


def test_a_network_as_it_always_was_is_described_without_normalisation_and_weights():
    plain = NetworkSpec(name="resnet20", classes=10)
    assert plain.model_dump(mode="json") == {"name": "resnet20", "classes": 10, "start": "random", "stem": "standard", "image_size": None}
    told = plain.model_copy(update={"norm": USUAL["0.5"], "weights": "state_dict_ema"})
    assert told.model_dump(mode="json")["norm"] == {"mean": [0.5], "std": [0.5]}
    assert NetworkSpec.model_validate(told.model_dump(mode="json")) == told
