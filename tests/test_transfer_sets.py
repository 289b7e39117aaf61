"""Transfer sets: what the student is taught on, which need not be what its teacher learned."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdzoo.data.loader import load_all as whole_of
from kdzoo.data.report import data_lines, data_record, transfer_record, without_validation
from kdzoo.data.sources import load
from kdzoo.data.split import labelled_subset, split
from kdzoo.data.transfer import class_numbers, classes_in_words
from kdzoo.data.unlabelled import ImageFormat, append_unlabelled, load_unlabelled
from kdzoo.errors import InputError
from kdzoo.runs.events import Event, Note
from kdzoo.runs.predictions import read_predictions
from kdzoo.runs.spec import DataSpec, TransferSpec
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare

DIGITS = tuple(map(str, range(10)))
ANIMALS = ("cat", "dog", "sea lion")
ALL_BUT_3 = (0, 1, 2, 4, 5, 6, 7, 8, 9)


@pytest.mark.parametrize(
    ("words", "classes", "numbers"),
    [
        (["-3"], DIGITS, ALL_BUT_3),
        (["8", "7"], DIGITS, (7, 8)),
        (["-7", "-8"], DIGITS, (0, 1, 2, 3, 4, 5, 6, 9)),
        (list(DIGITS), DIGITS, None),
        (["sea lion", "0"], ANIMALS, (0, 2)),
        (["-dog"], ANIMALS, (0, 2)),
        (["2"], ("1", "2", "3"), (1,)),
    ],
)
def test_classes_are_those_named_or_all_but_those_behind_a_minus(words, classes, numbers):
    assert class_numbers(words, classes) == numbers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["11"], "unknown '11'; did you mean '1'\\? Known: 0, 1, 2"),
        (["7", "-3"], r"expected the classes to teach \(7\) or the classes to leave out \(-3\), got both"),
        ([f"-{name}" for name in DIGITS], "all 10 classes are left out; expected at least one class to teach"),
    ],
)
def test_classes_that_the_data_lack_both_ways_at_once_and_none_at_all_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        class_numbers(words, DIGITS)


def test_few_classes_are_named_and_many_are_counted():
    assert classes_in_words(ALL_BUT_3, DIGITS) == "all classes but 3"
    assert classes_in_words((7, 8), DIGITS) == "classes 7, 8"
    assert classes_in_words((1,), ANIMALS) == "class dog"
    assert classes_in_words(range(50), list(map(str, range(100)))) == "50 of 100 classes"


@pytest.mark.parametrize("value", [-3, "-3", [-3], ["-3"]])
def test_a_configuration_takes_numbers_text_and_lists(value):
    assert bench_config({"transfer_classes": value}, None).transfer_classes == ("-3",)


@pytest.mark.parametrize(
    ("value", "message"), [("", "expected at least one class"), ([True], "expected names or numbers of classes, got True")]
)
def test_a_configuration_without_a_class_is_refused(value, message):
    with pytest.raises(InputError, match=f"transfer_classes: {message}"):
        bench_config({"transfer_classes": value}, None)


def digits_spec(images, **changes) -> DataSpec:
    return DataSpec(name=images.name, fingerprint=images.fingerprint, classes=10, val_fraction=0.2, **changes)


def test_the_student_lacks_a_class_and_validation_test_and_teacher_have_it():
    images = load("digits")
    whole, taught = (split(images, digits_spec(images, transfer=transfer)) for transfer in (None, TransferSpec(classes=ALL_BUT_3)))
    assert torch.equal(taught.train.images, whole.train.images[whole.train.targets != 3])
    assert torch.equal(taught.train.targets, whole.train.targets[whole.train.targets != 3])
    for mine, theirs in ((taught.val, whole.val), (taught.test, whole.test)):
        assert torch.equal(mine.images, theirs.images)
        assert (mine.targets == 3).any()
    assert torch.equal(labelled_subset(taught).images, whole.train.images), "a teacher is measured on what it learned"
    assert taught.description != whole.description, "the teacher's answers on other images are kept apart"


def test_the_share_of_labels_is_of_the_images_that_the_student_is_taught_on():
    images = load("digits")
    parts = split(images, digits_spec(images, label_fraction=0.25, transfer=TransferSpec(classes=(7, 8))))
    assert set(parts.train.targets.tolist()) == {-1, 7, 8}
    assert int((parts.train.targets >= 0).sum()) == round(0.25 * len(parts.train.targets))


def test_the_first_lines_say_what_the_student_is_taught_on_and_those_of_a_refit_count_what_was_held_out():
    images = load("digits")
    spec = digits_spec(images, transfer=TransferSpec(classes=ALL_BUT_3))
    parts = split(images, spec)
    record = {**data_record(images, parts), **transfer_record(images, parts, spec.transfer)}
    train, threes = len(images.train.targets), int((images.train.targets == 3).sum())
    held_out = len(parts.val.targets)
    taught = int((parts.train.targets != 3).sum())
    assert f"data: the student is taught on {taught:,} of {train - held_out:,} images: all classes but 3" in data_lines(record)
    refit = data_lines(without_validation(record))
    assert f"data: the student is taught on {train - threes:,} of {train:,} images: all classes but 3" in refit


def test_the_usual_transfer_set_leaves_ids_as_they_are_and_equal_sets_have_equal_ids(tmp_path):
    def runs(**changes):
        options = {"results": str(tmp_path), "name": "b", "data": "digits", "pairs": "digits", "recipe": "digits", "seeds": "1"}
        return plan(bench_config({**options, "methods": "hinton", "epochs": 2, "weights": "1", **changes}, None))

    usual, every, without, listed = (
        runs(),
        runs(transfer_classes=",".join(DIGITS)),
        runs(transfer_classes=-3),
        runs(transfer_classes=ALL_BUT_3),
    )
    ids = [{planned.run.id for planned in made.students} for made in (usual, every, without, listed)]
    assert ids[0] == ids[1]
    assert ids[2] == ids[3]
    assert ids[0].isdisjoint(ids[2])
    assert all("transfer" not in planned.run.model_dump(mode="json")["data"] for planned in usual.students)
    assert set(usual.teachers) == set(without.teachers), "one teacher, which learns all classes"
    assert "transfer" not in next(iter(without.teachers.values())).about["data"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A bench of the student alone and plain KD without threes, trained through the one code path, in a cache of its own."""
    place = tmp_path_factory.mktemp("transfer")

    def train(name: str, **changes):
        options = {"results": str(place), "name": name, "data": "digits", "teacher": "digits_student", "student": "digits_student"}
        options |= {"recipe": "digits", "epochs": 12, "methods": "hinton", "alphas": "1", "seeds": "1", "threads": 1}
        options |= {"set": {"teacher_recipe.epochs": 12}}
        events: list[Event] = []
        outcome = run(prepare(bench_config({**options, **changes}, None)), Here(), events.append, retry_failed=False)
        assert outcome.failed == {}
        return place / name, events

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(place / "cache"))
        folder, _ = train("without-3", transfer_classes="-3")
        yield folder, train


def results(folder: Path) -> dict[str, dict]:
    return {path.parent.name.partition("-")[0]: json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/result.json"))}


def errors_of_threes(folder: Path, method: str) -> int:
    return int(results(folder)[method]["last"]["test"]["errors_per_class"][3])


def test_a_class_never_seen_is_recognised_by_the_student_of_a_teacher_and_never_by_the_student_alone(bench):
    found = results(bench[0])
    alone, taught, teacher = found["none"]["last"]["test"], found["hinton"]["last"]["test"], found["hinton"]["teacher"]["test"]
    threes = alone["images_per_class"][3]
    assert alone["errors_per_class"][3] == threes > 0
    assert taught["errors_per_class"][3] <= threes - 5
    assert teacher["errors_per_class"][3] < threes / 4
    assert found["none"]["train"]["samples"] == found["hinton"]["train"]["samples"]


def test_errors_per_class_are_those_of_the_kept_predictions(bench):
    for path in bench[0].glob("runs/*/predictions.npz"):
        kept = read_predictions(path, path.parent.name, part="test", classes=10)
        test = json.loads((path.parent / "result.json").read_text())["last"]["test"]
        wrong = kept.targets[kept.log_probs.argmax(1) != kept.targets]
        assert test["errors_per_class"] == [int((wrong == label).sum()) for label in range(10)]
        right = [float(np.mean(kept.log_probs.argmax(1)[kept.targets == label] == label)) for label in range(10)]
        assert test["accuracy_per_class"] == pytest.approx(right)
        assert test["images_per_class"] == [int((kept.targets == label).sum()) for label in range(10)]
        assert test["top1"] == pytest.approx(1 - sum(test["errors_per_class"]) / test["n"])


def test_the_same_bench_again_trains_nothing_and_one_on_all_classes_has_its_own_answers_of_the_same_teacher(bench):
    folder, train = bench
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    train("without-3", transfer_classes="-3")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")} == before
    teachers = teacher_store().ids()
    (remembered, _), (live, _) = train("all", epochs=2), train("live", epochs=2, teacher_cache="off")
    assert teacher_store().ids() == teachers, "the teacher is the same one"
    assert results(remembered)["hinton"]["train"] == results(live)["hinton"]["train"]
    assert results(remembered)["hinton"]["last"] == results(live)["hinton"]["last"]
    assert errors_of_threes(remembered, "none") < errors_of_threes(folder, "none"), "here the student alone has seen threes"


def test_tables_name_the_transfer_set_and_show_errors_per_class(bench, kdzoo):
    folder, _ = bench
    assert "taught on all classes but 3" in (folder / "leaderboard.md").read_text()
    listed = json.loads(kdzoo("leaderboard", folder, "--per-class", "--json").out)
    threes = {row["method"]: (row["images"], row["errors"]) for row in listed if row["class"] == "3"}
    assert threes["none"][0] == threes["none"][1]
    assert threes["hinton"][1] == results(folder)["hinton"]["last"]["test"]["errors_per_class"][3]
    assert set(threes) == {"teacher", "none", "hinton"}
    table = kdzoo("leaderboard", folder, "--per-class").out
    assert "Test errors per class" in table
    assert "student alone" in table


def test_errors_per_class_stand_below_their_class_however_rows_are_sorted_and_filtered(bench, kdzoo):
    folder, _ = bench
    true = {name: results(folder)[name]["last"]["test"]["errors_per_class"] for name in ("none", "hinton")}

    def printed(*options: str) -> tuple[list[str], dict[str, list[str]]]:
        lines = kdzoo("leaderboard", folder, "--per-class", "--format", "md", *options).out.splitlines()
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        return head, {row[0]: row for row in rows}

    def cell(errors: float) -> str:
        return f"{errors:.1f}" if errors else ""

    head, rows = printed("--sort", "errors")
    assert head[-10:] == list("0123456789")
    assert rows["student alone"][-10:] == [f"{errors:.1f}" for errors in true["none"]]
    head, rows = printed("--filter", "errors>0", "--filter", "method!=teacher")
    shown = [label for label in range(10) if true["none"][label] or true["hinton"][label]]
    assert head[-len(shown) :] == [str(label) for label in shown]
    assert [rows["student alone"][3 - len(head)], *rows["student alone"][-len(shown) :]] == [
        f"{sum(true['none']):.1f}", *(cell(true["none"][label]) for label in shown),
    ]  # fmt: skip
    (kd,) = [row for name, row in rows.items() if name not in ("student alone", "images")]
    assert kd[-len(shown) :] == [cell(true["hinton"][label]) for label in shown]
    assert rows["images"][-len(shown) :] == [str(results(folder)["none"]["last"]["test"]["images_per_class"][label]) for label in shown]


def test_the_command_line_takes_a_minus_and_refuses_what_the_data_lack(kdzoo, place):
    words = ["bench", "--methods", "hinton", "--epochs", "1", "--dry-run", "--weights", "1", "--seeds", "1"]
    told = kdzoo(*words, "--transfer-classes", "-3")
    assert told.status == 0
    assert "images: all classes but 3" in told.out
    refused = kdzoo(*words, "--transfer-classes", "-33")
    assert refused.status == 2
    assert "transfer_classes: unknown '33'; did you mean '3'? Known: 0, 1, 2" in refused.err


def write_digits(folder: Path, places: slice, *, part: str = "train", side: int = 8) -> int:
    """Real digits as files, moved one pixel to the left unless they are test images; how many there are."""
    images = getattr(load("digits"), part).images[places, 0].numpy()
    images = images if part == "test" else np.roll(images, -1, axis=2)
    for number, pixels in enumerate(images):
        place = folder / ("some" if number % 2 else "others")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((side, side)).save(place / f"{number}.png")
    return len(images)


def planned_with(place: Path, **changes):
    options = {"results": str(place / "results"), "name": "b", "data": "digits", "pairs": "digits", "recipe": "digits", "seeds": "1"}
    return plan(bench_config({**options, "methods": "hinton", "epochs": 2, "weights": "1", **changes}, None))


def test_unlabelled_images_stand_behind_the_training_images_or_in_their_place(place):
    count = write_digits(place / "photos", slice(0, 30))
    images = load("digits")
    extra = load_unlabelled(f"folder:{place / 'photos'}", ImageFormat.those_of(images), root=None, image_size=None, skip_unreadable=False)
    assert extra.count == count
    whole = split(images, digits_spec(images))
    for only in (False, True):
        transfer = TransferSpec(images=extra.fingerprint, only=only)
        parts = split(images, digits_spec(images, transfer=transfer), extra)
        own = 0 if only else len(whole.train.targets)
        assert torch.equal(parts.train.targets[:own], whole.train.targets[:own])
        assert parts.train.targets[own:].tolist() == [-1] * count
        assert torch.equal(parts.train.images[own:], extra.pixels)
        assert torch.equal(parts.test.images, images.test.images)
        assert torch.equal(labelled_subset(parts).images, whole.train.images)
    shifted = np.roll(images.train.images[:count, 0].numpy(), -1, axis=2)
    assert sorted(map(bytes, extra.pixels[:, 0].numpy())) == sorted(map(bytes, shifted)), "the very pixels of the files"


def test_a_folder_of_images_without_labels_teaches_whole(place):
    """By either of its names: none of its images is set apart as a test part."""
    count = write_digits(place / "photos", slice(0, 30))
    like, words = ImageFormat.those_of(load("digits")), {"root": None, "image_size": None, "skip_unreadable": False}
    one, other = (load_unlabelled(f"{kind}:{place / 'photos'}", like, **words) for kind in ("images", "folder"))
    assert one.count == count
    assert one.fingerprint == other.fingerprint


def test_images_that_stay_in_their_files_are_the_same_ones(place, monkeypatch):
    write_digits(place / "photos", slice(0, 30))
    like = ImageFormat.those_of(load("digits"))
    words = {"root": None, "image_size": None, "skip_unreadable": False}
    resident = load_unlabelled(f"folder:{place / 'photos'}", like, **words)
    monkeypatch.setattr("kdzoo.data.unlabelled.IN_MEMORY_BYTES", 0)
    streamed = load_unlabelled(f"folder:{place / 'photos'}", like, **words)
    assert streamed.fingerprint == resident.fingerprint
    behind = append_unlabelled(load("digits").train, streamed)
    assert torch.equal(whole_of(behind.images, torch.device("cpu"))[-30:], resident.pixels)


def unlabelled_digits(folder: Path, **arrays: np.ndarray):
    """The files of these arrays, by name without the ending, as unlabelled images beside the grey 8x8 images of digits."""
    for name, pixels in arrays.items():
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}{'.tiff' if pixels.dtype == np.float32 else '.png'}")
    return load_unlabelled(f"folder:{folder}", ImageFormat.those_of(load("digits")), root=None, image_size=None, skip_unreadable=False)


def test_unlabelled_grey_of_16_bits_is_read_by_the_range_of_all_files_and_nothing_is_clipped(place):
    """Values of 16 bits are their upper 8; a dark file beside a light one stays dark, though its own range would be smaller."""
    light = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    found = unlabelled_digits(place / "deep", light=light, dark=light // 64).pixels.numpy()
    assert sorted(map(bytes, found[:, 0])) == sorted(map(bytes, ((light // 256).astype(np.uint8), (light // 64 // 256).astype(np.uint8))))


def test_unlabelled_grey_of_16_bits_beside_a_folder_of_8_bits_is_scaled_as_one_set(place):
    light = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)
    (place / "deep").mkdir()
    for name, pixels in (("light", light), ("dark", light // 64)):
        Image.fromarray(pixels).save(place / "deep" / f"{name}.png")
    like = ImageFormat((3, 8, 8), True, ())
    found = load_unlabelled(f"folder:{place / 'deep'}", like, root=None, image_size=None, skip_unreadable=False).pixels
    assert sorted(int(image.max()) for image in found) == [3, 255], "65520 / 256 and 1023 / 256, rounded down"


def test_transparent_pixels_of_unlabelled_images_are_white(place):
    pixels = np.full((8, 8, 4), 40, dtype=np.uint8)
    pixels[:, :4, 3], pixels[:, 4:, 3] = 0, 255
    (found,) = unlabelled_digits(place / "clear", half=pixels).pixels.numpy()
    assert found[0].tolist() == [[255] * 4 + [40] * 4] * 8


def test_unlabelled_floats_out_of_range_are_refused_by_name(place):
    values = np.linspace(-3, 300, 64, dtype=np.float32).reshape(8, 8)
    with pytest.raises(InputError, match=r"^transfer_data: float images have values from -3 to 300; expected .* \(wide.tiff\)$"):
        unlabelled_digits(place / "float", wide=values)


def test_the_unlabelled_images_are_part_of_the_id_and_their_names_and_order_are_not(place):
    write_digits(place / "photos", slice(0, 30))
    (place / "moved").mkdir()
    for number, file in enumerate(sorted((place / "photos").rglob("*.png"), reverse=True)):
        (place / "moved" / f"x{number}.png").write_bytes(file.read_bytes())
    write_digits(place / "fewer", slice(0, 29))
    ids = [
        {one.run.id for one in planned_with(place, transfer_data=f"folder:{place / name}", **changes).students}
        for name, changes in (("photos", {}), ("moved", {}), ("fewer", {}), ("photos", {"transfer_only": True}))
    ]
    assert ids[0] == ids[1]
    assert len(ids[0] | ids[2] | ids[3]) == 6


def test_what_cannot_be_a_transfer_set_is_refused_before_any_work(place):
    write_digits(place / "tests", slice(0, 5), part="test")
    write_digits(place / "large", slice(0, 3), side=9)
    (place / "empty").mkdir()
    for changes, message in (
        ({"transfer_data": f"folder:{place / 'tests'}"}, "transfer_data: 5 of the 5 images of .* are test images of digits too"),
        ({"transfer_data": f"folder:{place / 'large'}"}, r"3 of 3 images below .* have another size than the data's, 8x8: .*\(9x9\)"),
        ({"transfer_data": f"folder:{place / 'empty'}"}, "empty: no image files"),
        ({"transfer_data": f"folder:{place / 'nowhere'}"}, "nowhere: no such folder"),
        ({"transfer_data": "digit"}, "transfer_data: unknown 'digit'; did you mean 'digits'"),
        ({"transfer_only": True}, "transfer_only: expected transfer_data as well"),
        ({"transfer_data": "digits", "transfer_only": True, "transfer_classes": -3}, "which transfer_classes would choose among"),
    ):
        with pytest.raises(InputError, match=message):
            planned_with(place, **changes)


def test_the_training_images_of_a_data_set_can_be_unlabelled_images_and_repeats_are_counted(place):
    made = planned_with(place, transfer_data="digits")
    lines = data_lines(made.data)
    train, held_out = made.data["train"], made.data["validation"]
    assert f"data: the student is taught on all {train:,} training images" in lines
    assert f"data: the student is taught on {train + held_out:,} unlabelled images too, of digits" in lines
    assert f"data: of these unlabelled images {train:,} are training images and {held_out:,} are validation images too" in lines


def test_a_refit_beside_unlabelled_images_keeps_the_labels_of_what_was_held_out(place):
    write_digits(place / "photos", slice(0, 30))
    images = load("digits")
    words = f"folder:{place / 'photos'}"
    extra = load_unlabelled(words, ImageFormat.those_of(images), root=None, image_size=None, skip_unreadable=False)
    for only, labels in ((False, len(images.train.targets)), (True, 0)):
        spec = digits_spec(images, transfer=TransferSpec(images=extra.fingerprint, only=only))
        parts = split(images, spec, extra)
        refit = without_validation({**data_record(images, parts), **transfer_record(images, parts, spec.transfer, extra)})
        assert refit["labelled"] == labels
        assert not any("keep their labels" in line for line in data_lines(refit))


@pytest.mark.slow
def test_the_example_of_the_page_trains_and_shows_its_errors_per_class(kdzoo, place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # no heading is broken
    page = (Path(__file__).parent.parent / "docs" / "transfer-sets.md").read_text()
    trains, shows = [block.split()[1:] for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)]
    assert kdzoo(*trains, "--epochs", "1", "--seeds", "1", "--jobs", "1").status == 0
    shown = kdzoo(*shows)
    assert shown.status == 0
    assert all(words in " ".join(shown.out.split()) for words in ("teacher", "hinton", "student alone", "taught on all classes but 3"))


def test_methods_that_read_labels_are_refused_by_name_and_the_others_learn_from_unlabelled_images_alone(bench, tmp_path):
    count = write_digits(tmp_path / "photos", slice(0, 500))
    words = {"transfer_data": f"folder:{tmp_path / 'photos'}", "transfer_only": True}
    options = {"results": str(tmp_path), "data": "digits", "pairs": "digits", "recipe": "digits", "methods": ["crd", "cskd"]}
    for unlabelled in (words, {"label_fraction": 0.5}):
        with pytest.raises(InputError) as refused:
            prepare(bench_config({**options, **unlabelled}, None))
        assert "crd: reads the labels of every sample, but some samples have none" in str(refused.value)
        assert "cskd: pairs each sample with another of its label, but some samples have none" in str(refused.value)
    folder, events = bench[1]("unlabelled", **words)
    found = results(folder)
    assert found["none"]["train"]["samples"] == count
    assert found["none"]["last"]["test"]["top1"] < 0.25, "at chance, ten classes"
    assert found["hinton"]["last"]["test"]["top1"] > 0.35
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("the student alone learns nothing from it" in note for note in notes)
    assert f"taught on {count} unlabelled images alone" in (folder / "leaderboard.md").read_text()
