"""A teacher whose answers stand in a file teaches like the live one, and one written by hand like any closed model."""

import json
import re

import numpy as np
import pytest
import torch

from kdzoo.contract.needs import Need, NetworkNeeds, Pass
from kdzoo.data.epoch import EpochPlan
from kdzoo.data.sources import load
from kdzoo.data.split import split
from kdzoo.errors import InputError
from kdzoo.runs.predictions import read_predictions
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import DataSpec
from kdzoo.runs.store import Store, teacher_store
from kdzoo.teachers.file import spread
from kdzoo.teachers.file_io import read_saved
from kdzoo.teachers.saved import problems_of_saved, saved_teacher

SMALL = ("--data", "digits", "--student", "digits_student", "--limit", "200", "--epochs", "2", "--seeds", "1", "--no-refit", "--jobs", "1")
BENCH = ("bench", *SMALL, "--threads", "1", "--keep", "predictions", "--methods", "hinton")
MOVED_TEACHER = ("--set", "teacher_recipe.augment.crop=pad", "--set", "teacher_recipe.augment.pad=1")
MOVED = ("--set", "recipe.augment.crop=pad", "--set", "recipe.augment.pad=1")


@pytest.fixture(scope="module")
def images():
    return load("digits")


@pytest.fixture(scope="module")
def parts(images):
    return split(images, DataSpec(name="digits", fingerprint=images.fingerprint, classes=10, limit=200))


def rows(*subsets):
    """The arrays that every file has: the keys of some images, all in their centre view."""
    keys = np.concatenate([subset.keys.numpy() for subset in subsets])
    return {"keys": keys, "views": np.full(len(keys), -1)}


def closed_model(subset, classes=10):
    """The two most probable classes of a model that gives the label 0.7 and the next class 0.2."""
    labels = subset.targets.numpy()
    top = {"top_classes": np.stack([labels, (labels + 1) % classes], axis=1)}
    return {**top, "top_log_probs": np.log(np.tile([0.7, 0.2], (len(labels), 1))), "classes": classes, "k": 2}


def test_what_is_left_of_the_largest_is_divided_over_the_other_classes_and_then_softened():
    """0.7 and 0.2 of 4 classes leave 0.05 each for the other two; at T = 2 all are as their square roots."""
    logits = spread(torch.tensor([[0.7, 0.2]]).log(), torch.tensor([[2, 0]]), 4)
    assert torch.allclose(logits.softmax(1), torch.tensor([[0.2, 0.05, 0.7, 0.05]]))
    roots = np.sqrt([0.2, 0.05, 0.7, 0.05])
    assert np.allclose((logits / 2).softmax(1).numpy(), roots / roots.sum())


def test_the_largest_may_be_all_there_are_or_all_of_the_probability():
    whole = torch.randn(3, 4).log_softmax(1).topk(4)
    assert torch.allclose(spread(whole.values, whole.indices, 4).exp().sum(1), torch.ones(3))
    certain = spread(torch.zeros(1, 1), torch.tensor([[1]]), 3)
    assert torch.isfinite(certain).all()
    assert certain.argmax() == 1


def test_a_bench_with_a_saved_teacher_ends_where_the_live_one_leads(kdzoo, place, train_here):
    """To rounding: a row is computed in another batch than the one it teaches in."""
    assert kdzoo("train", "digits_teacher", "--data", "digits", "--limit", 200, "--epochs", 8, "--threads", 1).status == 0
    (teacher,) = teacher_store().ids()
    saved = kdzoo("teachers", "save", teacher, "-o", "answers.npz", "--check", 32)
    assert saved.status == 0, saved.err
    assert f"32 rows agree with {teacher}" in saved.out + saved.err
    ten = kdzoo("teachers", "save", teacher, "-o", "ten.safetensors", "--top", 10, "--embedding")
    assert ten.status == 0, ten.err
    students = {}
    for name, source in (("live", teacher), ("saved", "saved:answers.npz"), ("ten", "saved:ten.safetensors")):
        ended = kdzoo(*BENCH, "--teacher", source, "--name", name)
        assert ended.status == 0, ended.err
        (run_id,) = [one for one in Store(place / "results" / name).ids() if one.startswith("hinton")]
        folder = Store(place / "results" / name).run(run_id)
        result = folder.result()
        test = read_predictions(folder.predictions, run_id, part="test", classes=10)
        students[name] = (test.log_probs, result["teacher"]["test"]["top1"], result["last"]["test"]["agreement"])
    for name in ("saved", "ten"):
        assert np.abs(students[name][0] - students["live"][0]).max() < 1e-3
        assert students[name][1:] == pytest.approx(students["live"][1:])
    changed = dict(np.load("answers.npz"))
    np.savez("changed.npz", **{**changed, "logits": changed["logits"] * 1.01})
    differs = kdzoo("teachers", "check", "changed.npz", "--check", 8)
    assert differs.status == 1
    assert f"8 rows differ from {teacher}" in differs.out + differs.err
    refused = kdzoo(*BENCH, "--teacher", "saved:changed.npz", "--name", "refused", "--check", 16)
    assert refused.status == 2
    assert f"changed.npz: its rows differ from its live teacher, {teacher}: by up to" in refused.err
    assert "in 16 rows; save them again (kdzoo teachers save), or pass --check 0" in refused.err
    assert not (place / "results" / "refused" / "runs").exists()
    unchecked = kdzoo(*BENCH, "--teacher", "saved:changed.npz", "--name", "refused", "--check", 0, "--dry-run")
    assert unchecked.status == 0, unchecked.err
    same = kdzoo(*BENCH, "--teacher", "saved:ten.safetensors", "--name", "again", "--dry-run", "--check", 16)
    assert f"16 rows of its file agree with the live teacher, {teacher}" in same.out + same.err


def test_rows_of_the_views_that_a_runs_epochs_show_teach_like_the_live_teacher(kdzoo, place, train_here):
    """Saved with their embedding, by the views of a run under the live teacher; a longer run is refused, and all views serve it."""
    assert kdzoo("train", "digits_teacher", "--data", "digits", "--limit", 200, "--epochs", 8, "--threads", 1, *MOVED_TEACHER).status == 0
    (teacher,) = teacher_store().ids()
    moved = (*BENCH, *MOVED, "--set", "recipe.lr=0.02")  # what is compared is not to hang on the last bits of an answer

    def student(name: str):
        (run_id,) = [one for one in Store(place / "results" / name).ids() if one.startswith("hinton")]
        folder = Store(place / "results" / name).run(run_id)
        return folder, read_predictions(folder.predictions, run_id, part="test", classes=10).log_probs

    assert kdzoo(*moved, "--teacher", teacher, "--name", "live").status == 0
    live, expected = student("live")
    saved = kdzoo("teachers", "save", teacher, "-o", "shown.npz", "--views", live.id, "--embedding", "--check", 32)
    assert saved.status == 0, saved.err
    told = saved.out + saved.err
    assert f"32 rows agree with {teacher}" in told
    assert re.search(
        r"1,797 images in their centre view and [\d,]+ views of training images, 10 class scores each, and the embedding", told
    )
    ended = kdzoo(*moved, "--teacher", "saved:shown.npz", "--name", "shown")
    assert ended.status == 0, ended.err
    folder, found = student("shown")
    assert folder.result()["teacher"]["saved"] == {"k": None, "views": "exact"}
    assert np.abs(found - expected).max() < 1e-3
    other = kdzoo(*moved, "--teacher", "saved:shown.npz", "--name", "other", "--epochs", 3)
    assert other.status == 2
    assert "views of training images that its epochs show" in other.err
    every = kdzoo("teachers", "save", teacher, "-o", "all.safetensors", "--views", "all", "--top", 3, "--check", 0)
    assert every.status == 0, every.err
    file = read_saved(place / "all.safetensors")
    assert sorted(set(file.views.tolist())) == list(range(-1, 9))  # nine crops of a padding of 1, without flips
    assert (file.views >= 0).sum() % 9 == 0
    assert kdzoo(*moved, "--teacher", "saved:all.safetensors", "--name", "all", "--epochs", 3, "--dry-run").status == 0
    endless = kdzoo("teachers", "save", teacher, "-o", "no.npz", "--views", "nobody")
    assert endless.status == 2


def test_a_closed_model_written_with_numpy_teaches_on_images_that_the_trainer_moves(kdzoo, place, images, train_here):
    """It knows two classes of each training image, in the centre view, and nothing of the test images: the run says all of it."""
    np.savez("closed.npz", name="an_api", **rows(images.train), **closed_model(images.train))
    ended = kdzoo(*BENCH, *MOVED, "--teacher", "saved:closed.npz", "--name", "closed")
    assert ended.status == 0, ended.err
    assert "its file does not hold all test images" in ended.out + ended.err
    store = Store(place / "results" / "closed")
    (run,) = [store.run(one) for one in store.ids() if one.startswith("hinton")]
    teacher = json.loads((run.path / "run.json").read_text())["run"]["teacher"]
    assert teacher["views"] == "centre"
    assert teacher["start"] == f"saved:{read_saved(place / 'closed.npz').digest}"
    result = run.result()
    assert result["teacher"]["saved"] == {"k": 2, "views": "centre"}
    assert result["teacher"]["test"] is None
    assert result["last"]["test"]["agreement"] is None
    assert result["cost"]["teacher_passes"] == 0
    table = (store.folder / "leaderboard.md").read_text()
    assert "an_api (centre view)/digits_student" in table
    still = kdzoo(*BENCH, "--teacher", "saved:closed.npz", "--name", "closed", "--dry-run")
    assert "(centre view)" not in still.out
    refused = kdzoo(*BENCH, "--methods", "hinton,at,simkd", "--teacher", "saved:closed.npz", "--name", "refused")
    assert refused.status == 2
    assert "at: reads stages of the teacher, which the saved teacher an_api does not hold; it offers logits" in refused.err
    assert "simkd: reads " in refused.err
    assert not (place / "results" / "refused" / "runs").exists()


def test_what_a_file_does_not_offer_is_told_by_name_all_at_once(tmp_path, images, parts):
    some = type(images.train)(images.train.images[:5], images.train.targets[:5], images.train.keys[:5])
    np.savez(tmp_path / "few.npz", **rows(some), **closed_model(some))
    recipe = Recipe(epochs=1, batch_size=16, lr=0.1, mixup=0.2)
    problems = problems_of_saved(
        read_saved(tmp_path / "few.npz"), parts, recipe, 3, {"crd": NetworkNeeds(Need.EMBEDDING), "hinton": NetworkNeeds(Need.LOGITS)}
    )
    assert [problem.partition(":")[0] for problem in problems] == ["crd", "recipe.mixup, recipe.cutmix", "saved"]
    assert (
        f"has no row for {len(parts.train.targets) - sum(key in some.keys.tolist() for key in parts.train.keys.tolist())} of" in problems[2]
    )


def broken(images):
    good = {**rows(images.test), **closed_model(images.test)}
    return {
        "views: missing": {name: value for name, value in good.items() if name != "views"},
        "unknown array 'logit'; did you mean 'logits'?": {**good, "logit": good["top_log_probs"]},
        "expected either logits, or top_log_probs with top_classes": {**good, "logits": np.zeros((len(good["keys"]), 10))},
        "k: missing: how many classes each row holds": {name: value for name, value in good.items() if name != "k"},
        "sum to at most 1, got 1.8 in a row": {**good, "top_log_probs": np.log(np.full_like(good["top_log_probs"], 0.9))},
        "got one twice": {**good, "top_classes": np.ones_like(good["top_classes"])},
        "expected numbers from 0 to 9, got 10": {**good, "top_classes": good["top_classes"] + 10},
        "keys: expected uint8": {**good, "keys": good["keys"].astype(np.int64)},
        "embedding: expected numbers that are finite in float32, got": {**good, "embedding": np.full((len(good["keys"]), 3), np.nan)},
        "views: expected the shape": {**good, "views": good["views"][:3]},
        "views: expected -1 to 2147483647, got -1 to 18014398509481982": {**good, "views": np.append(good["views"][:-1], 2**54 - 2)},
        "views: expected -1 to 2147483647, got 18446744073709551615": {
            **good,
            "views": np.full(len(good["views"]), 2**64 - 1, dtype=np.uint64),
        },
        "that are NaN, infinite or too large": {**good, "embedding": np.full((len(good["keys"]), 3), np.finfo(np.float64).min)},
        "1 rows have the sample and the view of an earlier row, and another answer": {
            **{name: np.concatenate([value, value[:1]]) for name, value in good.items() if np.ndim(value)},
            **{name: value for name, value in good.items() if not np.ndim(value)},
            "top_log_probs": np.concatenate([good["top_log_probs"], good["top_log_probs"][:1] - 0.5]),
        },
        "the other classes would get more each": {**good, "top_log_probs": np.full_like(good["top_log_probs"], -3.0)},
        "class_names: expected JSON of a list of names, got 5": {**good, "class_names": "5"},
        "augment: expected JSON of an object": {**good, "augment": "5"},
    }


def test_a_file_that_cannot_be_right_is_refused_with_what_was_expected(tmp_path, images):
    for message, arrays in broken(images).items():
        np.savez(tmp_path / "broken.npz", **arrays)
        with pytest.raises(InputError) as refused:
            read_saved(tmp_path / "broken.npz")
        assert message in str(refused.value), message
    with pytest.raises(InputError, match=r"expected a file that ends in \.npz or \.safetensors"):
        read_saved(tmp_path / "teacher.csv")


@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble, np.float16])
def test_numbers_of_another_machine_or_width_are_read_as_they_are(tmp_path, images, kind):
    logits = np.linspace(-4, 4, 10 * len(images.test.keys)).reshape(-1, 10).astype(kind)
    np.savez(tmp_path / "other.npz", **rows(images.test), logits=logits)
    assert np.array_equal(read_saved(tmp_path / "other.npz").all_logits.numpy(), logits.astype(np.float32))


def test_the_same_row_twice_is_one_answer(tmp_path, images):
    keys, views = (np.concatenate([value, value]) for value in rows(images.test).values())
    logits = np.tile(np.eye(10)[images.test.targets.numpy()], (2, 1))
    np.savez(tmp_path / "twice.npz", keys=keys, views=views, logits=logits)
    file = read_saved(tmp_path / "twice.npz")
    assert torch.equal(file.logits(file.find(images.test.keys)).argmax(1), images.test.targets)


def test_rows_of_numbered_views_answer_for_the_very_view_that_a_student_sees(tmp_path, images, parts):
    """Each row says in its embedding which sample and which view it is of."""
    augment = Augment(crop="pad", pad=1)
    train = parts.train
    numbers = np.arange(9)
    keys = np.repeat(train.keys.numpy(), 9, axis=0)
    views = np.tile(numbers, len(train.keys))
    samples = np.repeat(np.arange(len(train.keys)), 9)
    embedding = np.stack([samples, views], axis=1).astype(np.float32)
    arrays = {"keys": keys, "views": views, "logits": np.zeros((len(keys), 10)), "embedding": embedding}
    np.savez(tmp_path / "views.npz", **arrays, augment=json.dumps(augment.model_dump(mode="json")))
    recipe = Recipe(epochs=2, batch_size=16, lr=0.1, augment=augment)
    file = read_saved(tmp_path / "views.npz")
    assert problems_of_saved(file, parts, recipe, 3, {}) == []
    plan = EpochPlan(parts, recipe, seed=3, epoch=1, passes=Pass.SECOND_VIEW)
    answers = saved_teacher(file, parts, recipe).open_epoch(plan, Need.EMBEDDING | Pass.SECOND_VIEW)
    loaded = next(iter(plan.batches(2)))
    outputs = answers.at(loaded.positions, plan.gather(loaded, None)[0])
    codes = {which: plan.view_indices(which)[loaded.positions] for which in (Pass.FIRST, Pass.SECOND_VIEW)}
    assert outputs.embedding.long().tolist() == torch.stack([loaded.index, codes[Pass.FIRST]], 1).tolist()
    assert outputs.second.embedding.long().tolist() == torch.stack([loaded.index, codes[Pass.SECOND_VIEW]], 1).tolist()
    assert len(codes[Pass.FIRST].unique()) > 1
    other = recipe.model_copy(update={"augment": Augment(crop="pad", pad=2)})
    assert "has no row for" in problems_of_saved(file, parts, other, 3, {})[0]
