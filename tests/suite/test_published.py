"""Published numbers: as their sources print them, refused with every fault, and beside a bench's rows with what differs."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text
from test_leaderboard import objective, write

from kdzoo.errors import InputError
from kdzoo.models.names import require_network_name
from kdzoo.models.pairs import pair
from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.beside import beside
from kdzoo.suite.report.beside_text import beside_sections, legend
from kdzoo.suite.report.published import COLUMNS, published, published_in, read_published, tables

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("table", "pair", "data", "method", "top1", "epoch", "epochs", "seeds", "teacher", "run_by"),
    [
        ("crd", "wrn_40_2/wrn_16_2", "cifar100", "none", 73.26, "last", 240, None, 75.61, "source"),
        ("crd", "resnet56/resnet20", "cifar100", "hinton", 70.66, "last", 240, None, 72.34, "source"),
        ("crd", "cifar_vgg13/vgg8", "cifar100", "crd", 73.94, "last", 240, None, 74.64, "source"),
        ("crd", "cifar_vgg13/mobilenetv2_half", "cifar100", "nst", 58.16, "last", 240, None, 74.64, "source"),
        ("crd", "cifar_resnet50/vgg8", "cifar100", "ft", 70.29, "last", 240, None, 79.34, "source"),
        ("crd", "wrn_40_2/shufflenetv1", "cifar100", "crd", 76.05, "last", 240, None, 75.61, "source"),
        ("mdistiller", "resnet32x4/shufflenetv2", "cifar100", "dkd", 77.07, "best", 240, None, 79.42, "source"),
        ("mdistiller", "resnet56/resnet20", "cifar100", "hinton", 70.66, "last", 240, None, 72.34, "copied"),
        ("mdistiller", "resnet34/resnet18", "imagenet", "dkd", 71.70, "best", 100, None, None, "source"),
        ("logit_std", "resnet32x4/resnet8x4", "cifar100", "logit_std", 76.62, "best", 240, None, 79.42, "source"),
        ("logit_std", "resnet32x4/wrn_40_2", "cifar100", "hinton", 77.70, "unknown", 240, None, 79.42, "unknown"),
        ("logit_std", "cifar_resnet50/mobilenetv2_half", "cifar100", "logit_std_dkd", 70.45, "best", 240, None, 79.34, "source"),
        ("logit_std", "resnet110/resnet20", "cifar100", "mlld", 71.89, "unknown", 480, None, 74.31, "unknown"),
        ("kd_zoo", "resnet110/resnet20", "cifar10", "hinton", 92.82, "best", 200, 1, 93.86, "source"),
        ("kd_zoo", "resnet110/resnet20", "cifar100", "crd", 70.80, "best", 200, 1, 73.15, "source"),
        ("kd_zoo", "resnet20/resnet20", "cifar100", "none", 68.92, "best", 200, 1, 68.92, "source"),
        ("kd_zoo", "resnet110/resnet110", "cifar100", "irg", 74.96, "best", 200, 1, 73.15, "source"),
        ("ttm", "resnet32x4/shufflenetv1", "cifar100", "itrd", 76.91, "unknown", None, None, 79.42, "unknown"),
        ("ttm", "resnet50/mobilenetv1_100", "imagenet", "wttm", 73.09, "unknown", None, None, 76.16, "source"),
        ("dist", "resnet152/resnet34", "imagenet", "dist", 75.42, "unknown", None, None, None, "source"),
        ("simkd", "resnet32x4/resnet8x4", "cifar100", "hinton", 74.42, "unknown", None, None, 79.42, "source"),
        ("torchdistill", "resnet34/resnet18", "imagenet", "ickd", 68.34, "unknown", None, None, None, "source"),
        ("mmrazor", "resnet34/resnet18", "imagenet", "wsld", 71.54, "unknown", None, None, 73.62, "source"),
        ("nkd", "resnet50/mobilenetv1_100", "imagenet", "nkd", 72.58, "unknown", None, None, None, "source"),
        ("streamlined", "resnet32x4/resnet8x4", "cifar100", "hinton", 74.75, "unknown", 240, None, None, "source"),
    ],
)
def test_a_cell_is_the_number_and_the_protocol_that_its_source_prints(
    table, pair, data, method, top1, epoch, epochs, seeds, teacher, run_by
):
    (found,) = [row for row in published_in(table) if (row.pair, row.data, row.method) == (pair, data, method)]
    assert (found.value, found.epoch, found.epochs, found.seeds, found.teacher, found.run_by) == (
        top1, epoch, epochs, seeds, teacher, run_by,
    )  # fmt: skip


def test_crds_table_is_whole():
    """Thirteen methods and the student alone on seven pairs of a family but one cell, and all but FSP on six others."""
    cells = {(row.pair, row.method) for row in published_in("crd")}
    assert len({pair for pair, _ in cells}) == 13
    assert len(cells) == 7 * 14 - 1 + 6 * 13
    kd = {row.pair: row.value for row in published_in("crd") if row.method == "hinton"}
    crd = {row.pair: row.value for row in published_in("crd") if row.method == "crd"}
    assert all(crd[pair] > kd[pair] for pair in kd)
    assert sum(kd.values()) == pytest.approx(509.18 + 431.88)  # the seven pairs of a family, the six others


def test_every_pair_network_and_method_of_a_published_table_is_one_of_kdzoos():
    for row in published():
        parse_request(row.method)
    for name in {row.pair for row in published()}:
        made = pair(name)
        for network in (made.teacher, made.student):
            require_network_name(network.partition(":")[0])


def test_every_row_names_its_source():
    assert all(row.source.startswith("https://") for row in published())
    assert len(tables()) == len({row.source for row in published()})


def test_the_faults_of_a_table_are_told_all_at_once(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(
        ",".join(COLUMNS) + "\n"
        "a/b,cifar100,at,AT,701.5,,last,240,,,source,https://x\n"
        "a/b,cifar100,kd,KD,seventy,,lst,240,1.5,,source,https://x\n"
        "a/b,cifar100,sp,SP,70.1,,last,240,,,source,https://x\n"
        "a/b,cifar100,sp,SP,70.2,,last,240,,,source,https://x\n"
        "a/b,cifar100\n"
    )
    with pytest.raises(InputError) as refused:
        read_published(file)
    assert list(refused.value.problems) == [
        "mine.csv:2: top1: expected a number <= 100, got 701.5",
        "mine.csv:3: top1: expected a valid number, got 'seventy'",
        "mine.csv:3: epoch: expected 'last', 'best' or 'unknown', got 'lst'; did you mean 'last'?",
        "mine.csv:3: seeds: expected a valid integer, got '1.5'",
        "mine.csv:5: a/b cifar100 sp SP stands in line 4 already",
        f"mine.csv:6: expected {len(COLUMNS)} cells, got 2",
    ]
    file.write_text("pair,data,methods,printed,top1,epoch,run_by,source\n")
    with pytest.raises(InputError) as refused:
        read_published(file)
    assert list(refused.value.problems) == [
        "mine.csv:1: unknown column 'methods'; did you mean 'method'?",
        "mine.csv:1: column 'method' is missing",
    ]


@pytest.fixture
def bench(place):
    """Three seeds of resnet56/resnet20 on CIFAR-100 at half its side, with 10 % of 20,000 images held out."""
    for seed in range(3):
        for method, top1 in (("none", 0.55), ("hinton", 0.574), ("at", 0.561)):
            write(
                place / "results" / "small", objective(method), seed, val=0.5 + top1 / 10, test=top1 + seed / 500,
                student=NetworkSpec(name="resnet20", classes=100),
                teacher=NetworkSpec(name="resnet56", classes=100, start="run:none-0123456789ab") if method != "none" else None,
                data={"name": "cifar100_16", "limit": 20_000}, recipe={"epochs": 30}, about={"pair": "resnet56/resnet20"},
            )  # fmt: skip
    return place / "results" / "small"


def test_a_row_stands_beside_its_published_number_with_what_differs(bench):
    frame = beside([read_bench(bench)], published()).frame
    (kd,) = frame[(frame["method"] == "hinton") & (frame["table"] == "crd")].to_dict("records")
    assert kd["ours top1"] == pytest.approx(0.576)
    assert kd["published top1"] == 0.7066
    assert kd["ours - published"] == pytest.approx(0.576 - 0.7066)
    half = 4.302653 * 0.002 / math.sqrt(3)  # Student's t with two degrees of freedom
    assert (kd["ours - published low"], kd["ours - published high"]) == pytest.approx((-0.1306 - half, -0.1306 + half), abs=1e-8)
    assert kd["differs"].split("; ") == [
        "pixels: 16x16 here, 32x32 there",
        "epochs: 30 here, 240 there",
        "images: 18,000 training images here, 50,000 there",
        "teacher: 96.00 % here, 72.34 % there",
        "unstated: crd does not state seeds",
    ]
    copied = frame[(frame["method"] == "hinton") & (frame["table"] == "logit_std")].iloc[0]
    assert "copied: logit_std copied the number from an earlier table" in copied["differs"]


def test_benches_of_one_name_stand_apart(bench):
    again = shutil.copytree(bench, bench.parent / "again" / "small")
    frame = beside([read_bench(bench), read_bench(again)], published()).frame
    assert list(dict.fromkeys(frame["bench"])) == ["results/small", "again/small"]
    assert len(beside_sections(frame)) == 2


def test_one_seed_the_best_epoch_and_other_weights_are_marked(place):
    pair_of = {"student": NetworkSpec(name="resnet20", classes=10), "about": {"pair": "resnet110/resnet20"}}
    teacher = NetworkSpec(name="resnet110", classes=10, start="run:none-0123456789ab")
    made = {"val": None, "data": {"val_fraction": 0.0}, "recipe": {"epochs": 200}, "teacher": teacher, **pair_of}
    write(place / "b", objective("hinton", alpha=0.5), 0, test=0.93, **made)
    frame = beside([read_bench(place / "b")], published()).frame
    assert frame["differs"].tolist() == [
        "best epoch: the published number is of the best epoch on the test set, ours of the last one; one seed: here and there; "
        "teacher: 96.00 % here, 93.86 % there; weights: ours stands at other weights than the method was published with "
        "(column setting)"
    ]
    assert frame["ours - published low"].isna().all()


def test_another_temperature_and_a_transfer_set_are_marked(place):
    about = {"pair": "resnet110/resnet20", "class_names": list("abcdefghij")}
    made = {
        "val": None, "data": {"val_fraction": 0.0, "transfer": {"classes": (0, 1, 2)}}, "recipe": {"epochs": 200}, "about": about,
        "teacher": NetworkSpec(name="resnet110", classes=10, start="run:none-0123456789ab"),
        "student": NetworkSpec(name="resnet20", classes=10),
    }  # fmt: skip
    write(place / "b", objective("hinton", temperature=20.0), 0, test=0.5, **made)
    (differs,) = beside([read_bench(place / "b")], published()).frame["differs"]
    assert "images: taught on classes a, b, c here, on the whole training set there" in differs.split("; ")
    assert "hyper-parameters: hinton.temperature 20 here, 4 declared" in differs.split("; ")
    assert "weights" not in differs


def test_compare_published_fits_80_columns_and_explains_each_mark(kdzoo, bench, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # which takes a pipe for a terminal
    told = kdzoo("compare", "small", "--published")
    assert told.status == 0
    lines = Text.from_ansi(told.out).plain.splitlines()
    assert max(map(len, lines)) <= 80
    (kd,) = [line.split() for line in lines if line.startswith("hinton")]
    assert kd[:4] == ["hinton", "3", "57.60", "70.66"]
    explained = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line[1:3] == "  " and line[0].isalpha()}
    assert set(kd[-1]) <= set(explained)
    assert explained[next(letter for letter in kd[-1] if "pixels" in explained[letter])] == "pixels: 16x16 here, 32x32 there"
    assert "published, but not in this bench: ab, cc, crd" in " ".join(" ".join(lines).split())


def test_compare_published_as_json_holds_every_difference_in_words(kdzoo, bench):
    rows = json.loads(kdzoo("compare", "small", "--published", "--format", "json", "--filter", "method=at").out)
    assert [(row["table"], row["published top1"], row["ours n"]) for row in rows] == [("crd", 0.7055, 3)]
    assert "epochs: 30 here, 240 there" in rows[0]["differs"]
    assert kdzoo("compare", "small", "--published", "--format", "csv").out.startswith("bench,pair,data,")


def test_a_pair_without_published_numbers_is_named_with_those_that_have_some(kdzoo, place):
    write(place / "results" / "b", objective("hinton"), 0, val=0.8, test=0.8)
    told = " ".join(kdzoo("compare", "b", "--published").out.split())
    assert "no published numbers for resnet20/resnet8 on cifar10; pairs with numbers: resnet20/resnet20, resnet110/resnet20" in told
    assert kdzoo("compare", "b", "nowhere", "gone", "--published").err.count("\n") == 2


def test_more_marks_than_letters_still_have_names_of_their_own():
    import pandas as pd

    marks = legend(pd.DataFrame({"differs": [f"epochs: {number:03} here" for number in range(60)]}))
    assert len({letter for letter, _ in marks}) == 60


def test_the_wheel_holds_all_of_configs(tmp_path):
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    here = {file.relative_to(ROOT / "kdzoo") for file in (ROOT / "kdzoo" / "configs").rglob("*") if file.is_file()}
    built = tmp_path / "lib" / "kdzoo"
    assert {file for file in here if not (built / file).is_file()} == set()
