"""What a model card says of a student: its own row, and nothing of the machine on which it was trained."""

import pytest
from test_leaderboard import objective, write

from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import Store
from kdzoo.suite.export.card import data_words, row_words, without_path
from kdzoo.suite.page.tables import tables_of
from kdzoo.suite.report.records import read_record


def test_a_card_has_the_row_of_its_own_pair_and_no_other(tmp_path):
    runs = {}
    for student, test in (("resnet8", 0.55), ("resnet14", 0.85)):
        for method in ("none", "hinton"):
            network = NetworkSpec(name=student, classes=10)
            runs[student] = write(
                tmp_path / "b", objective(method), 0, val=test, test=test, student=network, about={"pair": f"resnet20/{student}"}
            )
    for student, own, other in (("resnet8", "55.00", "85.00"), ("resnet14", "85.00", "55.00")):
        folder = Store(tmp_path / "b").run(runs[student].id)
        words = row_words(folder, read_record(folder))
        assert own in words
        assert other not in words


def test_a_bench_of_one_seed_has_no_intervals_to_draw(tmp_path):
    for method in ("none", "hinton", "at"):
        write(tmp_path / "b", objective(method), 0, val=0.8, test=0.8)
    assert tables_of(tmp_path / "b").forest.empty


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("folder /home/me/secret/photos (5 .png)", "folder photos (5 .png)"),
        ("folder photos", "folder photos"),
        ("cifar10 in the data folder", "cifar10 in the data folder"),
    ],
)
def test_a_folder_of_images_is_named_without_its_path(source, words):
    assert without_path(source) == words


def test_the_sentences_on_the_data_stand_apart(tmp_path):
    data = {
        "shape": [3, 32, 32],
        "train": 9,
        "validation": 1,
        "test": 5,
        "source": "folder photos",
        "notes": ["skipped: 2 files", "mapped"],
    }
    run = write(tmp_path / "b", objective("none"), 0, val=0.8, test=0.8, about={"data": data})
    words = data_words(read_record(Store(tmp_path / "b").run(run.id)))
    assert words.endswith("fingerprint `f00d`. Skipped: 2 files. Mapped.")
