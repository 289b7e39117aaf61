"""docs/add-your-own.md, followed to the letter; and what is registered is known wherever a name is."""

import csv
from pathlib import Path

import pytest
from pages import Ran, page

import kdzoo as zoo

PAGE = page("add-your-own.md")


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ran]]:
    """An empty folder in which the page was followed from top to bottom, and how each command ended."""
    folder = tmp_path_factory.mktemp("newcomer")
    return folder, PAGE.follow(folder)


@pytest.fixture
def own(place: Path) -> Path:
    """The page's plugin in an empty folder."""
    for name, code in PAGE.files.items():
        (place / name).write_text(code)
    return place / "photographs.py"


@pytest.mark.slow
def test_every_command_of_the_page_ends_well(followed):
    _, ran = followed
    assert len(ran) == 4
    for one in ran:
        assert one.status == 0, f"{one.command}\n{one.said}"


@pytest.mark.slow
def test_the_bench_trains_the_named_pair_on_the_named_data_and_all_methods_beat_chance(followed):
    rows = list(csv.DictReader((followed[0] / "results" / "photographs" / "leaderboard.csv").open()))
    assert {row["method"] for row in rows} >= {"none", "hinton", "at", "rkd"}
    assert {row["data"] for row in rows} == {"photographs"}
    assert {row["pair"] for row in rows} == {"strided16/strided4"}
    assert all(float(row["test_top1"]) > 0.6 for row in rows)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pairs"], "strided16"),
        (["recipes"], "which know no up and down"),
        (["networks"], "strided4"),
        (["networks", "strided*"], "strided16"),
        (["data", "list"], "patches of the two photographs"),
    ],
)
def test_lists_show_what_a_plugin_registers(kdzoo, own, words, expected):
    said = kdzoo(*words, "--plugin", own, "--format", "csv")
    assert said.status == 0, said.err
    assert expected in said.out


def test_a_name_that_is_taken_by_something_else_is_refused_and_the_same_again_is_not(tmp_path):
    with pytest.raises(zoo.InputError, match="pairs: 'digits' is one of kdzoo's own; choose another name"):
        zoo.register_pair(zoo.Pair("digits", "resnet56", "resnet20"))
    zoo.register_pair(zoo.Pair("digits", "digits_teacher", "digits_student", "digits"))
    with pytest.raises(zoo.InputError, match="recipe: 'smoke' is one of kdzoo's own"):
        zoo.register_recipe("smoke", tmp_path / "smoke.yaml")
    with pytest.raises(zoo.InputError, match="'resnet20' is one of kdzoo's or timm's own"):
        zoo.register_network("resnet20", zoo.Pair)
    with pytest.raises(zoo.InputError, match="'cifar10' is one of kdzoo's own"):
        zoo.register_source("cifar10", lambda: zoo.Raw(((), ()), ((), ()), ()))
