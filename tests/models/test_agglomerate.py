"""Several teachers as one: each on one scale, each of one weight in a squared distance, and a bench under them."""

import pytest
import timm
import torch
from safetensors.torch import save_file

import kdzoo as zoo
from kdzoo.data.sources import load
from kdzoo.errors import InputError
from kdzoo.models.agglomerate import agglomerate

NAMES = ("test_vit", "test_efficientnet")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    for name in NAMES:
        save_file(timm.create_model(name, **({"img_size": 32} if name == "test_vit" else {})).state_dict(), folder / f"{name}.safetensors")
    images = load("digits").train.images[:400]
    return agglomerate([f"{name}:{folder / name}.safetensors@32@norm=0.5" for name in NAMES], images)


def test_every_teacher_has_the_same_share_of_the_variance(teacher):
    images = load("digits").train.images[:400]
    blocks = teacher(images).split(teacher.widths, dim=1)
    assert teacher.widths == tuple(timm.create_model(name, num_classes=0).num_features for name in NAMES)
    shares = [float(block.var(0).sum()) for block in blocks]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)
    for block in blocks:
        variances = block.var(0)
        torch.testing.assert_close(variances, variances.mean().expand_as(variances), rtol=1e-2, atol=1e-3)


def test_it_teaches_a_student_by_a_head_for_each(teacher, place):
    options = {"data": "digits", "task": "features", "student": "digits_student", "recipe": "digits", "epochs": 2, "seeds": "1"}
    outcome = zoo.bench(
        "embed",
        teacher=teacher,
        grid={"embed.distance": ["squared"], "embed.layers": [1]},
        set={"teacher.norm": "pixels"},
        results=str(place / "results"),
        execution=zoo.Execution(threads=1),
        **options,
    )
    assert not outcome.attrs["failed"]
    assert outcome.set_index("method").loc["teacher", "test_knn"] > 0.5


@pytest.mark.parametrize("norm", ["", "@norm=data"])
def test_a_file_that_does_not_say_what_it_was_trained_with_is_refused(norm, tmp_path):
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"does not say what images were normalised with; add @norm=imagenet, clip, 0\.5"):
        agglomerate([f"test_efficientnet:{tmp_path / 'w.safetensors'}{norm}"], torch.zeros(4, 3, 32, 32, dtype=torch.uint8))


def test_what_names_no_weights_is_refused():
    with pytest.raises(InputError, match="test_vit:random: expected NAME:pretrained or NAME:FILE"):
        agglomerate(["test_vit:random"], torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
