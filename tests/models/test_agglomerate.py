"""Several teachers joined in one file: each on one scale, each of one weight in a squared distance, and a bench under them."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from kdzoo.contract.plugins import load_plugins
from kdzoo.data.sources import load
from kdzoo.errors import InputError
from kdzoo.functional import embed
from kdzoo.models.backbone import load_backbone
from kdzoo.models.join import read_joined, save_joined
from kdzoo.models.measure import measure_shapes
from kdzoo.models.names import NETWORKS
from kdzoo.runs.seals import DIGEST
from kdzoo.training.joining import join_teachers

NAMES = ("test_vit", "test_efficientnet")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Two networks with random weights in files, in the words of the command line."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    for name in NAMES:
        save_file(timm.create_model(name, **({"img_size": 32} if name == "test_vit" else {})).state_dict(), folder / f"{name}.safetensors")
    return [f"{name}:{folder / name}.safetensors@32@norm=0.5" for name in NAMES]


@pytest.fixture(scope="module")
def images():
    return load("digits").train.images[:400]


@pytest.fixture(scope="module")
def file(words, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("joined") / "joined.safetensors"
    save_joined(words, images, path)
    return path


@pytest.fixture(scope="module")
def teacher(file):
    return read_joined(file, channels=1, side=8)


def test_every_teacher_has_the_same_share_of_the_variance(teacher, images):
    widths = tuple(timm.create_model(name, num_classes=0).num_features for name in NAMES)
    blocks = teacher.logits(images).split(widths, dim=1)
    shares = [float(block.var(0).sum()) for block in blocks]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)
    for block in blocks:
        variances = block.var(0)
        torch.testing.assert_close(variances, variances.mean().expand_as(variances), rtol=1e-2, atol=1e-3)


def test_a_student_that_has_learned_nothing_is_as_far_from_each_teacher_by_embed(teacher, images):
    shapes = measure_shapes(teacher, (1, 8, 8))
    assert shapes.joined == tuple(timm.create_model(name, num_classes=0).num_features for name in NAMES)
    given = teacher.logits(images)
    for place, width in enumerate(shapes.joined):
        start = sum(shapes.joined[:place])
        block = torch.zeros_like(given)
        block[:, start : start + width] = given[:, start : start + width]
        distance = embed(torch.zeros_like(given), block, distance="squared", joined=shapes.joined)
        assert distance.item() == pytest.approx(1 / len(shapes.joined), rel=1e-2)  # every channel has the variance 1


def test_under_a_file_of_an_earlier_version_a_student_has_one_head(file, images, tmp_path):
    with safe_open(file, "pt") as opened:
        metadata, state = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    del metadata[DIGEST]  # as of a file that another program wrote
    members = json.loads(metadata["members"])
    assert members.pop("heads") == "each"
    save_file(state, tmp_path / "earlier.safetensors", {**metadata, "members": json.dumps(members)})
    earlier = read_joined(tmp_path / "earlier.safetensors", channels=1, side=8)
    assert measure_shapes(earlier, (1, 8, 8)).joined == ()
    torch.testing.assert_close(earlier.logits(images[:5]), read_joined(file, channels=1, side=8).logits(images[:5]))


def test_a_block_is_its_teachers_embedding_rotated_and_scaled_alone(teacher, words, images):
    """Distances within a block are those of the teacher's own embeddings, but for one factor."""
    widths = [timm.create_model(name, num_classes=0).num_features for name in NAMES]
    for text, block in zip(words, teacher.logits(images[:50]).split(widths, dim=1), strict=True):
        own = load_backbone(text, channels=1, side=8).logits(images[:50])
        ratio = torch.pdist(block.double()) / torch.pdist(own.double())
        assert float(ratio.std() / ratio.mean()) < 1e-3


def test_a_file_is_read_as_the_teacher_that_was_written(words, images, file, tmp_path):
    again = save_joined(words, images, tmp_path / "again.safetensors")
    torch.testing.assert_close(read_joined(file, channels=1, side=8).logits(images[:20]), again.logits(images[:20]))


def test_it_teaches_a_student_by_a_head_for_each_in_processes_of_their_own(words, kdzoo, place):
    joined = kdzoo("teachers", "join", *words, "--data", "digits", "--images", "400", "-o", "joined.safetensors")
    assert joined.status == 0, joined.err
    options = "--task features --student digits_student --recipe digits --epochs 2 --seeds 1 --threads 1 --launcher local"
    bench = ("bench", "--name", "several", "--methods", "embed", "--data", "digits", "--teacher", "joined.safetensors")
    trained = kdzoo(*bench, *options.split())
    assert trained.status == 0, trained.err
    rows = {row["method"]: row for row in json.loads(kdzoo("leaderboard", "several", "--json").out)}
    assert rows["teacher"]["test_knn"] > 0.5
    assert rows["embed"]["n"] == 1
    record = json.loads(next((place / "results" / "several" / "runs").glob("embed-*/run.json")).read_text())
    assert [one["licence"] for one in record["about"]["licences"] if one["part"] == "teacher"] == ["unknown"]


def test_the_scales_are_measured_on_images_of_all_classes(words, tmp_path):
    """Images of a folder are sorted by class, so that the first ones would be of one."""
    path = tmp_path / "few.safetensors"
    network = join_teachers(words, "digits", path, images=100)
    digits = load("digits")
    drawn = torch.randperm(len(digits.train.targets), generator=torch.Generator().manual_seed(0))[:100]
    assert len(set(digits.train.targets[drawn].tolist())) == 10
    block = network.logits(digits.train.images[drawn])
    torch.testing.assert_close(block.mean(0), torch.zeros(block.shape[1]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("norm", ["", "@norm=data"])
def test_a_file_that_does_not_say_what_it_was_trained_with_is_refused(norm, tmp_path, words, images):
    save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"does not say what images were normalised with; add @norm=imagenet, clip, 0\.5"):
        save_joined([f"test_efficientnet:{tmp_path / 'w.safetensors'}{norm}", words[0]], images, tmp_path / "j.safetensors")


def test_all_faults_of_the_teachers_are_told_at_once(images, tmp_path):
    with pytest.raises(InputError) as refused:
        save_joined(["test_vit:random", "test_vut"], images, tmp_path / "j.safetensors")
    assert "test_vit:random: expected NAME:pretrained or NAME:FILE" in refused.value.problems
    assert any("'test_vit'" in problem for problem in refused.value.problems)


def test_one_teacher_and_a_file_that_exists_are_refused(words, images, file, tmp_path):
    with pytest.raises(InputError, match="expected two or more to join, got 1"):
        save_joined(words[:1], images, tmp_path / "j.safetensors")
    with pytest.raises(InputError, match="exists already"):
        save_joined(words, images, file)
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        save_joined(words, images, tmp_path / "j.npz")


def test_where_there_are_class_scores_to_learn_it_is_refused_and_it_is_no_student(kdzoo, file):
    of_classes = kdzoo("bench", "--data", "digits", "--teacher", str(file), "--student", "digits_student", "--dry-run")
    assert of_classes.status == 2
    assert "gives embeddings alone; expected --task features" in " ".join(of_classes.err.split())
    student = kdzoo("bench", "--data", "digits", "--teacher", str(file), "--student", str(file), "--task", "features", "--dry-run")
    assert student.status == 2
    assert "teach with --task features" in " ".join(student.err.split())


def test_the_set_of_weights_that_is_named_is_taken(images, tmp_path):
    torch.manual_seed(3)
    states = [timm.create_model("test_efficientnet").state_dict() for _ in range(2)]
    torch.save({"state_dict": states[0], "state_dict_ema": states[1]}, tmp_path / "two.pth")
    save_file(states[1], tmp_path / "ema.safetensors")

    def embed(file: str) -> torch.Tensor:
        return load_backbone(f"test_efficientnet:{tmp_path / file}", channels=1, side=8).logits(images[:4])

    expected = embed("ema.safetensors@32@norm=0.5")
    torch.testing.assert_close(embed("two.pth@32@norm=0.5@weights=state_dict_ema"), expected)
    assert not torch.equal(embed("two.pth@32@norm=0.5"), expected)
    with pytest.raises(InputError, match="has no weights under 'state_dict_emma'"):
        embed("two.pth@32@norm=0.5@weights=state_dict_emma")


def test_a_users_network_that_has_changed_since_it_was_joined_is_refused(images, tmp_path, place):
    code = """
import torch, kdzoo

class Mine(torch.nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.body = torch.nn.Conv2d(channels, 8, 3)
        self.head = torch.nn.Linear(8, classes) if classes else torch.nn.Identity()
    def forward(self, x):
        return self.head(self.body(x).relu().mean((2, 3)) * FACTOR)

def joined_mine(num_classes=10, in_chans=1):
    return Mine(num_classes, in_chans)

kdzoo.register_network("joined_mine", joined_mine)
"""
    (place / "mine.py").write_text(code.replace("FACTOR", "1.0"))
    load_plugins([str(place / "mine.py")])
    torch.manual_seed(0)
    save_file(NETWORKS.get("joined_mine").build(num_classes=0, in_chans=1).state_dict(), tmp_path / "mine.safetensors")
    text = f"joined_mine:{tmp_path / 'mine.safetensors'}@norm=0.5"
    save_joined([text, text], images, tmp_path / "joined.safetensors")
    read_joined(tmp_path / "joined.safetensors", channels=1, side=8)
    (place / "mine.py").write_text(code.replace("FACTOR", "2.0"))
    load_plugins([str(place / "mine.py")])
    with pytest.raises(InputError, match=r"joined_mine.*its code is now version"):
        read_joined(tmp_path / "joined.safetensors", channels=1, side=8)


@pytest.mark.parametrize("setting", ["@norm=imagenet", "@small"])
def test_settings_that_change_nothing_of_joined_teachers_are_refused(setting, kdzoo, file):
    of_features = ("bench", "--data", "digits", "--task", "features", "--student", "digits_student", "--dry-run")
    told = kdzoo(*of_features, "--teacher", f"{file}{setting}")
    assert told.status == 2
    assert "joined teachers take images as they are" in " ".join(told.err.split())


def test_joined_teachers_without_their_file_are_refused(kdzoo):
    for name in ("agglomerate", "agglomerate:pretrained"):
        told = kdzoo("bench", "--data", "digits", "--task", "features", "--teacher", name, "--student", "digits_student", "--dry-run")
        assert told.status == 2
        assert "expected a file that `kdzoo teachers join` has written" in " ".join(told.err.split())


def test_images_of_other_channels_and_another_programs_file_are_refused(file, tmp_path):
    with pytest.raises(InputError, match="joined on images of 1 channels, got 3"):
        read_joined(file, channels=3, side=8)
    save_file({"mean_0": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not say which networks it has"):
        read_joined(tmp_path / "other.safetensors", channels=1, side=8)


def test_class_scores_by_names_are_saved_from_the_command_line(words, images, kdzoo, place):
    with torch.no_grad():
        width = load_backbone(words[1], channels=1, side=8).logits(images[:1]).shape[1]
    np.savez("names.npz", names=[str(digit) for digit in range(10)], embeddings=np.random.default_rng(0).normal(size=(10, width)))
    saved = kdzoo("teachers", "save-by-names", words[1], "names.npz", "--data", "digits", "-o", "answers.npz", "--scale", "50")
    assert saved.status == 0, saved.err
    assert "1,797 images" in saved.out
    with np.load("answers.npz") as answers:
        assert np.abs(answers["logits"]).max() <= 50 + 1e-3
