"""A teacher that knows classes by the embeddings of their names teaches through a file of its answers."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import kdzoo as zoo
from kdzoo.data.sources import load
from kdzoo.errors import InputError
from kdzoo.models.backbone import load_backbone
from kdzoo.training.named_scores import save_named_scores


@pytest.fixture
def named(place):
    """A backbone, and an embedding for each digit's name, which stand in another order: the mean of what it gives for its images."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet").state_dict(), "w.safetensors")
    teacher = "test_efficientnet:w.safetensors@32@norm=0.5"
    digits = load("digits")
    with torch.no_grad():
        embedding = torch.nn.functional.normalize(load_backbone(teacher, channels=1, side=8).logits(digits.train.images), dim=1)
    centre = embedding.mean(0)
    means = torch.stack([(embedding[digits.train.targets == digit] - centre).mean(0) for digit in range(10)])
    np.savez("names.npz", names=[str(digit) for digit in range(9, -1, -1)], embeddings=means.flip(0).numpy())
    return teacher, means


def test_scores_are_the_cosines_with_the_names_in_the_order_of_the_data(named, place):
    teacher, means = named
    file = save_named_scores(teacher, place / "names.npz", "digits", place / "answers.npz", scale=50.0)
    digits = load("digits")
    assert len(file.keys) == len(digits.train.targets) + len(digits.test.targets)
    embedding = load_backbone(teacher, channels=1, side=8).logits(digits.train.images[:5]).detach().numpy()
    names = means.numpy()
    expected = [[50 * a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in names] for a in embedding]
    np.testing.assert_allclose(file.logits(torch.arange(5)).numpy(), expected, rtol=1e-3, atol=1e-2)


def test_further_images_without_labels_have_scores_too_and_the_file_names_its_teacher(named, place):
    teacher, _ = named
    (place / "more").mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 40 * number, dtype=np.uint8)).save(place / "more" / f"{number}.png")
    file = save_named_scores(teacher, place / "names.npz", "digits", place / "answers.npz", unlabelled=f"folder:{place / 'more'}")
    digits = load("digits")
    assert len(file.keys) == len(digits.train.targets) + len(digits.test.targets) + 3
    assert file.name == "test_efficientnet_by_names"
    network = load_backbone(teacher, channels=1, side=8)
    dark = torch.nn.functional.normalize(network.logits(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), dim=1)
    names = torch.nn.functional.normalize(named[1], dim=1)
    further = file.logits(torch.arange(len(file.keys) - 3, len(file.keys)))
    nearest = (further - 100 * (names @ dark[0])).abs().amax(1).min()  # files are in the order of their content
    assert float(nearest) < 0.01


def test_it_teaches_a_student_of_these_classes(named, place):
    teacher, _ = named
    save_named_scores(teacher, place / "names.npz", "digits", place / "answers.npz")
    board = zoo.bench(
        "hinton",
        teacher=f"saved:{place / 'answers.npz'}",
        student="digits_student",
        data="digits",
        recipe="digits",
        epochs=3,
        seeds="1",
        results=str(place / "results"),
        execution=zoo.Execution(jobs=1, threads=1, launcher="here"),
    ).set_index("method")
    assert board.loc["teacher", "test_top1"] > 0.3
    assert board.loc["hinton", "test_agreement"] > 0.2


def test_other_names_and_widths_are_refused(named, place):
    teacher, means = named
    np.savez("few.npz", names=["0", "1"], embeddings=means[:2].numpy())
    np.savez("narrow.npz", names=[str(digit) for digit in range(10)], embeddings=means[:, :3].numpy())
    np.savez("nothing.npz", other=[1])
    for name, message in (("few", "it lacks 2, 3, 4"), ("narrow", "embeddings of width 3"), ("nothing", "expected an npz file with names")):
        with pytest.raises(InputError, match=message):
            save_named_scores(teacher, place / f"{name}.npz", "digits", place / "answers.npz")
