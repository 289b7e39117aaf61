"""The page of a bench beside the CSV files of the same folder, and what it weighs."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from test_leaderboard import AT, KD, NONE, objective, write

from kdzoo.errors import InputError
from kdzoo.suite.page.build import build_page
from kdzoo.suite.page.bundle import vega_lite
from kdzoo.suite.page.not_tried import in_brief
from kdzoo.suite.page.sentences import answers
from kdzoo.suite.page.tables import tables_of
from kdzoo.suite.report.columns import columns_for
from kdzoo.suite.report.compare import compare
from kdzoo.suite.report.table_files import write_tables
from kdzoo.tasks.classification import TOP1

DIGITS = Path(__file__).resolve().parent.parent.parent / "results" / "digits"


class Tables(HTMLParser):
    """The tables of a page: captions, and rows of (text, data-value)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[list[tuple[str, str | None]]]]] = []
        self._cell: list | None = None
        self._caption = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        match tag:
            case "table":
                self.found.append(("", []))
            case "caption":
                self._caption = True
            case "tr":
                self.found[-1][1].append([])
            case "th" | "td":
                self._cell = ["", dict(attrs).get("data-value")]

    def handle_data(self, data):
        if self._caption:
            self.found[-1] = (self.found[-1][0] + data, self.found[-1][1])
        elif self._cell is not None:
            self._cell[0] += data

    def handle_endtag(self, tag):
        if tag == "caption":
            self._caption = False
        elif tag in ("th", "td") and self._cell is not None:
            self.found[-1][1][-1].append(tuple(self._cell))
            self._cell = None


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def unpack(packed: dict) -> pd.DataFrame:
    """A frame as the page's script unpacks it."""
    rows = packed["rows"]

    def values(column):
        if isinstance(column, list):
            return column
        return [column["all"]] * rows if "all" in column else [column["of"][at] for at in column["at"]]

    return pd.DataFrame({name: values(column) for name, column in packed["columns"].items()}, dtype=object)


@pytest.fixture
def bench(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.80, test=NONE[seed])
        for temperature in (1.0, 2.0, 4.0):
            write(tmp_path / "b", objective("hinton", temperature), seed, val=0.80 + temperature / 100, test=KD[seed])
        write(tmp_path / "b", objective("at"), seed, val=0.2, test=AT[seed] / 4, fail="RuntimeError: out of memory" if seed == 1 else None)
    return tmp_path / "b"


@pytest.mark.parametrize("real", [True, False])
def test_the_tables_of_the_page_have_the_values_of_leaderboard_csv(bench, real):
    folder = DIGITS if real else bench
    page = build_page([folder])
    csv = pd.read_csv(DIGITS / "leaderboard.csv", dtype=str) if real else pd.read_csv(_written(bench) / "leaderboard.csv", dtype=str)
    names = {"student alone": "none"}
    values = {column.name: column.value for column in columns_for(TOP1) if column.value}
    compared = 0
    for caption, (headings, *rows) in Tables(page).found:
        if "on digits" not in caption and "on cifar10" not in caption:
            continue
        place = {heading: at for at, (heading, _) in enumerate(headings)}
        for row in rows:
            method = row[place["method"]][0]
            (line,) = [line for _, line in csv.iterrows() if line["method"] == names.get(method, method)]
            for heading, column in values.items():
                if heading in place:
                    found, there = row[place[heading]][1], line[column]
                    assert (found is None) == pd.isna(there), (method, heading)
                    assert found is None or found == there or float(found) == pytest.approx(float(there), rel=1e-9), (method, heading)
                    compared += 1
    assert compared > 40


def _written(folder: Path) -> Path:
    write_tables(folder)
    return folder


def test_the_list_of_runs_is_runs_csv_byte_for_byte():
    runs = unpack(data_of(build_page([DIGITS]))["frames"]["bench-1-runs"])
    written = pd.read_csv(DIGITS / "runs.csv", dtype=str, keep_default_na=False)
    assert list(runs.columns) == list(written.columns)
    for name in written:
        for found, there in zip(runs[name], written[name], strict=True):
            assert ("" if found is None else found) == there or float(found) == float(there), name


def test_nothing_is_loaded_from_elsewhere():
    page = build_page([DIGITS])
    outside_scripts = re.sub(r"<script[^>]*>.*?</script>", "", page, flags=re.S)
    assert re.findall(r"(?:src|href)=\"([^#\"][^\"]*)", outside_scripts) == ["data:,"]
    assert "url(" not in outside_scripts
    assert "default-src 'none'" in page


def test_the_command_writes_the_page_without_torch(place):
    code = "import sys; sys.modules['torch'] = None; from kdzoo.cli.app import status_of; sys.exit(status_of(sys.argv[1:], debug=True))"
    words = ["report", str(DIGITS), "-o", "out/page.html"]
    said = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "report: out/page.html\n"), said.stderr
    assert (place / "out" / "page.html").read_text(encoding="utf-8") == build_page([DIGITS])


def test_a_page_is_html_and_where_no_browser_opens_that_is_said(kdzoo, place, monkeypatch):
    for name in ("page.pdf", "page"):
        refused = kdzoo("report", DIGITS, "-o", name)
        assert refused.status == 2
        assert f"output: {name}: a page is written as HTML; expected a name that ends in .html or .htm" in refused.err
        assert not (place / name).exists()
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    shown = kdzoo("report", DIGITS, "-o", "page.HTM", "--open")
    assert (shown.status, shown.out) == (0, "report: page.HTM\n")
    assert "no browser could be started here; open page.HTM in one yourself" in shown.err


def test_open_shows_the_page_and_benches_that_lead_nowhere_are_all_named(kdzoo, place, monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    assert kdzoo("report", DIGITS, "--open").status == 0
    assert shown == [(place / "report.html").as_uri()]
    wrong = kdzoo("report", "nowhere", "elsewhere")
    assert wrong.status == 2
    assert "nowhere" in wrong.err
    assert "elsewhere" in wrong.err


def test_what_is_no_bench_is_refused_with_its_name(tmp_path):
    with pytest.raises(InputError, match="not a bench"):
        build_page([tmp_path])


def test_a_bench_without_runs_has_a_page_that_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/bench.json").write_text('{"starts": []}')
    assert "there are no runs" in build_page([tmp_path / "empty"])


def test_the_answer_says_the_best_how_sure_the_cost_and_what_was_not_tried(bench):
    (answer,) = answers(tables_of(bench))
    details = dict(answer.details)
    board = tables_of(bench).board.set_index("method")
    assert details["Best"].startswith("hinton (T=4 alpha=0.9) has the highest mean test top-1: 85.00 ± 1.00 % over 3 seeds")
    assert f"{100 * board.loc['hinton', 'vs_alone']:+.2f} [" in details["Best"]
    assert "would be chosen again in 100 % of resamples" in details["How sure"]
    assert "hinton with T above 4, the edge at which it was chosen" in details["Not tried"]
    assert re.search(r"\d+ methods of the zoo", details["Not tried"])
    assert "at" not in details["Best"]


@pytest.mark.parametrize(
    ("count", "brief"),
    [
        (3, ["m0 with dose above 3, the edge", "m1 with dose above 3, the edge", "m2 with dose above 3, the edge"]),
        (9, ["values beyond the edge of the sweep, at which 9 settings were chosen (m0 with dose above 3, m1", "..."]),
    ],
)
def test_many_edges_are_counted_with_a_few_examples(count, brief):
    found = [f"m{number} with dose above 3, the edge at which it was chosen" for number in range(count)]
    assert all(words in "; ".join(in_brief(found)) for words in brief)
    assert len(in_brief(found)) <= 3


def test_alpha_has_nothing_beyond_its_bounds(tmp_path):
    for alpha in (0.5, 0.9, 1.0):
        for seed in range(2):
            write(tmp_path / "b", objective("hinton", alpha=alpha), seed, val=alpha * 0.9, test=0.8, about={"swept": ["alpha"]})
    for seed in range(2):
        write(tmp_path / "b", objective("none"), seed, val=0.4, test=0.4)
    (answer,) = answers(tables_of(tmp_path / "b"))
    assert "alpha above" not in dict(answer.details)["Not tried"]


def test_a_row_that_has_other_seeds_is_not_below_what_it_beats(tmp_path):
    """Ranked are the rows on common seeds; a lucky row of other seeds has a higher mean and no rank."""
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.8, test=0.8)
        write(tmp_path / "b", objective("hinton"), seed, val=0.85, test=0.85)
    write(tmp_path / "b", objective("at"), 7, val=0.95, test=0.95)
    best = dict(next(iter(answers(tables_of(tmp_path / "b")))).details)["Best"]
    assert best.startswith("hinton (T=4 alpha=0.9) ranks first on the seeds that all have: 85.00")
    assert "has 95.00 % over other seeds" in best


@pytest.mark.parametrize(
    ("written", "drawn", "version"),
    [
        ("v6.4.0", ["5.8", "6.1", "6.4"], "v6.4"),
        ("v6.5.0", ["6.1", "6.4"], "v6.4"),
        ("v6.2.0", ["5.20", "6.4"], "v5.20"),
        ("v5.0.0", ["6.4"], "v6.4"),
    ],
)
def test_altair_and_vl_convert_need_not_be_of_one_day(written, drawn, version):
    assert vega_lite(written, drawn) == version


def test_a_bench_of_kd_alone_asks_whether_it_helps_and_its_best_row_may_be_the_student_alone(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.9, test=KD[seed])
        write(tmp_path / "b", objective("hinton"), seed, val=0.89, test=NONE[seed])
    (answer,) = answers(tables_of(tmp_path / "b"))
    details = dict(answer.details)
    assert answer.question == "Does plain KD make a better resnet8 out of resnet20 than training it alone, on cifar10?"
    assert details["Best"].startswith("student alone has the highest mean test top-1")
    assert details["At what cost"] == "Nothing beside the training of the student itself."


def test_a_verdict_that_begins_with_a_method_keeps_its_name(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.8, test=0.80 + seed / 100)
        write(tmp_path / "b", objective("hinton"), seed, val=0.85, test=0.85 + seed / 100)
        write(tmp_path / "b", objective("at"), seed, val=0.92, test=0.92 + seed / 100 + (seed == 1) / 500)
    assert answers(tables_of(tmp_path / "b"))[0].verdict.startswith("'at' is better than")
    write(tmp_path / "b", objective("at"), 3, val=0.92, test=0, fail="ValueError")
    assert answers(tables_of(tmp_path / "b"))[0].verdict[0].isupper()


def test_a_bench_without_kd_says_so_in_a_sentence(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.8, test=NONE[seed])
    assert answers(tables_of(tmp_path / "b"))[0].verdict.startswith("None about KD, which is not in this table")


def test_failures_stand_there_with_their_last_line(bench):
    page = build_page([bench])
    (failed,) = [rows for caption, rows in Tables(page).found if caption == "Failed and damaged runs"]
    assert [cell for cell, _ in failed[0]] == ["run", "method", "setting", "seed", "last line"]
    assert failed[1][1][0] == "at"
    assert failed[1][4][0] == "RuntimeError: out of memory"
    assert len(failed) == 2


def test_every_runs_specification_is_whole(bench):
    page = build_page([bench])
    shared = dict(re.findall(r"<dt>([\w.]+)</dt><dd>([^<]*)</dd>", page.split("What all of these runs have in common")[1]))
    rows = unpack(data_of(page)["frames"]["bench-1-specifications"]).set_index("id")
    for folder in (bench / "runs").iterdir():
        run = json.loads((folder / "run.json").read_text())["run"]
        found = {**{name: html.unescape(value) for name, value in shared.items()}, **rows.loc[folder.name].to_dict()}
        assert found["seed"] == str(run["seed"])
        assert found["recipe.lr"] == str(run["recipe"]["lr"])
        assert json.loads(found["objective.terms"]) == run["objective"]["terms"]
        assert found["data.fingerprint"] == "f00d"


def test_benches_that_share_no_table_stand_below_each_other_with_the_reason(bench, tmp_path):
    page = build_page([bench, DIGITS])
    beside = page.split("Side by side")[1].split('id="bench-1"')[0]
    assert "nothing can be compared" in beside
    assert "data.name differs: " in beside
    assert "<table>" not in beside
    assert 'id="bench-2"' in page


def test_a_table_that_one_bench_has_alone_does_not_stand_beside_nothing(bench, tmp_path):
    other = shutil.copytree(bench, tmp_path / "other")
    for seed in range(3):
        write(other, objective("none"), seed, val=0.80, test=NONE[seed], recipe={"epochs": 9})
    captions = [caption for caption, _ in Tables(build_page([bench, other]).split('id="bench-1"')[0]).found]
    assert captions == ["resnet20/resnet8, cifar10, 5 epochs, sweep"]


def test_a_setting_that_validation_chose_before_a_refit_is_not_said_to_be_picked_by_test_images(bench):
    for seed in range(3, 6):
        refit = {"about": {"phase": "refit"}, "data": {"val_fraction": 0}}
        write(bench, objective("none"), seed, val=None, test=NONE[seed - 3], **refit)
        write(bench, objective("hinton", 4.0), seed, val=None, test=KD[seed - 3], **refit)
    tables = tables_of(bench)
    assert tables.board.query("phase == 'refit' and method == 'hinton'")["settings_tried"].tolist() == [3]
    assert not any("held out" in words for answer in answers(tables) for _, words in answer.details)


def test_a_table_of_several_settings_with_nothing_held_out_says_who_picks_the_best(tmp_path):
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=None, test=NONE[seed])
        for temperature in (2.0, 4.0):
            write(tmp_path / "b", objective("hinton", temperature), seed, val=None, test=KD[seed] + temperature / 1000)
    (answer,) = answers(tables_of(tmp_path / "b"))
    assert "of several settings the best is picked here by its test images" in dict(answer.details)["Best"]


def test_benches_of_one_name_are_told_apart_everywhere_as_they_are_compared(bench, tmp_path):
    folders = [shutil.copytree(bench, tmp_path / place / "same") for place in ("mine", "theirs")]
    page = build_page(folders)
    names = compare(folders).names
    assert names == ("mine/same", "theirs/same")
    assert f"<title>{', '.join(names)}: kdzoo report</title>" in page
    for name in names:
        assert f">{name}</a>" in page
        assert f">{name}</h2>" in page
        assert f"<h3>{name}: " in page
    assert len(set(re.findall(r"<title>(.*), (.*): kdzoo", build_page([bench, bench]))[0])) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("runs", "most"), [(1000, 2.5e6)])
def test_a_page_of_many_runs_is_small(tmp_path, monkeypatch, runs, most):
    monkeypatch.setattr("kdzoo.runs.atomic.os.fsync", lambda handle: None)  # a thousand files are not to survive a crash here
    for number in range(runs):
        seed, setting = number % 5, number // 5
        made = objective("hinton", 1 + setting % 20 / 4, round(0.05 + setting // 20 / 12, 4))
        value = 0.7 + number * 7919 % 1000 / 5000
        write(tmp_path / "b", made, seed, val=value, test=value)
    page = build_page([tmp_path / "b"])
    assert data_of(page)["frames"]["bench-1-runs"]["rows"] == runs
    assert len(page.encode()) < most
