"""A bench in a notebook: the example runs in a real kernel; its result is a frame, shown as HTML in which text stays text."""

import pickle
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from rich.console import Console
from test_leaderboard import objective, write

import kdzoo
from kdzoo.runs.events import Note, PlanMade, RunFailed
from kdzoo.suite.page.build import build_page
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.run.notebook_display import NotebookDisplay

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "docs" / "notebook.ipynb"

UNDER_A_LOOP = """
import asyncio

async def train():
    return kdzoo.bench(["soft_l1"], temperatures=[2, 4], seeds=2, epochs=5, name="notebook", execution=kdzoo.Execution(threads=1))

again = await train()
assert asyncio.get_running_loop().is_running()
assert again.equals(result), "nothing was left to train"
"""


class Tables(HTMLParser):
    """The texts of all cells, table by table and row by row, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: set[str] = set()
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.in_cell = tag in ("td", "th")

    def handle_endtag(self, tag):
        self.in_cell = False

    def handle_data(self, data):
        if self.in_cell:
            self.tables[-1][-1][-1] += data


class Frames(HTMLParser):
    """The documents that stand in frames."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.documents: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "iframe":
            self.documents.append(dict(attrs)["srcdoc"])


@pytest.fixture
def folder(tmp_path):
    """The student alone at 0.80, 0.81, 0.82 and plain KD at 0.84, 0.85, 0.86, of a pair with a bad name, and a method that failed."""
    bad = {"about": {"pair": "<script>alert(1)</script>"}}
    for seed in range(3):
        write(tmp_path / "b", objective("none"), seed, val=0.80, test=0.80 + seed / 100, **bad)
        write(tmp_path / "b", objective("hinton"), seed, val=0.88, test=0.84 + seed / 100, **bad)
    write(tmp_path / "b", objective("at"), 0, val=0.0, test=0.0, fail="RuntimeError: <img src=x>", **bad)
    return tmp_path / "b"


@pytest.mark.slow
def test_the_example_runs_in_a_real_kernel_also_under_its_running_event_loop(place):
    notebook = nbformat.read(EXAMPLE, 4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are made, not committed"
    notebook.cells.append(nbformat.v4.new_code_cell(UNDER_A_LOOP))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    outputs = {cell.source.split("\n")[0]: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}

    progress = [output for output in outputs["result = kdzoo.bench("] if output.output_type == "display_data"]
    assert len(progress) == 1, "one picture, replaced as the bench goes on"
    assert progress[0].data["text/html"].startswith("<pre")
    text = progress[0].data["text/plain"]
    assert text.index("data: train 1,150") < text.index("10/10 runs 100 %"), "notes stand above the bar"

    (shown,) = outputs["result"]
    (table,) = Tables(shown.data["text/html"]).tables
    assert {row[table[0].index("method")] for row in table[1:]} == {"teacher", "hinton", "soft_l1", "student alone"}
    assert "Verdict: " in shown.data["text/html"]
    (page,) = outputs["result.report()"]
    assert Frames(page.data["text/html"]).documents == [(place / "report.html").read_text()]
    (grid,) = outputs["!kdzoo leaderboard notebook --surface soft_l1"]
    assert "* chosen: T=" in grid.text


def test_progress_shows_notes_above_the_bars_and_text_stays_text():
    display = NotebookDisplay(Console(width=100), clock=lambda: 0.0)
    display.show = lambda: None  # there is no kernel here that would take a picture
    for event in (
        PlanMade("b", units=10.0, total=4, done=1, failed=0),
        Note("first <script>alert(1)</script>"),
        RunFailed("x-0123456789ab", "x", "", 0, "RuntimeError: no"),
    ):
        display.handle(event)
    picture = display._repr_mimebundle_(None, None)
    text = picture["text/plain"]
    assert text.index("first") < text.index("RuntimeError: no") < text.index("1/4 runs")
    assert "&lt;script&gt;" in picture["text/html"]
    assert "<script" not in picture["text/html"]


def test_a_result_shows_itself_as_the_tables_that_a_reader_sees(folder):
    result = kdzoo.BenchResult(read_bench(folder), {})
    shown = Tables(result._repr_html_())
    assert shown.tags == {"p", "strong", "small", "table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary"}
    healthy, collapsed = shown.tables
    heading = healthy[0]
    cells = {row[heading.index("method")]: dict(zip(heading, row, strict=True)) for row in healthy[1:]}
    assert cells["hinton"]["test top-1"] == "85.00 ± 1.00"
    assert cells["student alone"]["test top-1"] == "81.00 ± 1.00"
    assert cells["hinton"]["vs student alone"].startswith("+4.00 [")
    assert collapsed[1][0] == "at"
    assert "failed: at-" in result._repr_html_()
    assert "RuntimeError: &lt;img src=x&gt;" in result._repr_html_()


def test_a_result_is_a_frame_and_what_is_made_of_it_is_a_plain_one(folder):
    result = kdzoo.BenchResult(read_bench(folder), {"at-0123456789ab": "RuntimeError: no"})
    board = leaderboard_frame(read_bench(folder))
    assert result.attrs == {"folder": str(folder), "failed": {"at-0123456789ab": "RuntimeError: no"}}
    assert list(result.columns) == list(board.columns)
    pickled = pickle.loads(pickle.dumps(result))
    for made in (result[result["n"] > 1], result[["method", "n"]], result.copy(), result.sort_values("n"), pickled):
        assert type(made) is pd.DataFrame
        assert made.attrs == result.attrs
    pd.testing.assert_frame_equal(pickled, board)
    result["mine"] = 1.0
    assert "mine" in result._repr_html_(), "what was changed in place is shown as it is"


def test_a_report_is_written_and_a_cell_shows_the_page_that_was_written(folder, place):
    page = kdzoo.BenchResult(read_bench(folder), {}).report()
    assert page.path == Path("report.html")
    assert page.path.read_text() == build_page([folder])
    frames = Frames(page._repr_html_()).documents
    assert frames == [build_page([folder])], "the whole page, and nothing of it outside of its frame"
    assert Tables(page._repr_html_()).tags == {"p", "code", "iframe"}
    assert kdzoo.BenchResult(read_bench(folder), {}).report(place / "mine.html").path == place / "mine.html"
