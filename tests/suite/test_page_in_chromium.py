"""The page of a bench in a real browser: nothing is requested, nothing goes wrong, and what can be clicked works."""

import itertools
import re
import shutil
from pathlib import Path

import chromium
import pandas as pd
import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from test_leaderboard import AT, KD, NONE, objective, write

from kdzoo.suite.page.build import build_page
from kdzoo.suite.page.chart_kind import ChartKind
from kdzoo.suite.page.kinds import charts_of
from kdzoo.suite.page.tables import tables_of

pytestmark = pytest.mark.skipif(None in (chromium.BROWSER, chromium.DRIVER), reason="Chromium and its driver are not installed")
RESULTS = Path(__file__).resolve().parent.parent.parent / "results"
DIGITS = RESULTS / "digits"
NAMES_THAT_MEET = """
const overlap = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
const meet = (a, b) => overlap(a, b, "left", "right") > 2 && overlap(a, b, "top", "bottom") > 4;
const sections = ["pareto", "reliability"].map((kind) => `section[aria-labelledby$='-${kind}'] .chart`);
return [...document.querySelectorAll(sections)].flatMap((chart) => {
  const names = [...chart.querySelectorAll(".mark-text.role-mark text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  return names.flatMap(([one, box], at) => names.slice(at + 1).filter(([, other]) => meet(box, other)).map(([other]) => `${one} ${other}`));
});"""
"""pairs of names beside points that cover each other by more than the white around letters"""
EVIL = "<script>window.harm = 1</script><img src=x onerror='window.harm = 2'>"
"""a name that does harm where it is not kept as text"""


@pytest.fixture(scope="module")
def browser():
    one = chromium.Chromium()
    yield one
    one.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A bench with every kind of runs, one whose names are HTML, and both side by side."""
    place = tmp_path_factory.mktemp("pages")
    shutil.copytree(DIGITS, place / "digits")
    evil = place / EVIL.replace("/", "\u2215")
    for seed in range(3):
        about = {"pair": f"{EVIL}/resnet8", "recipe": f"</script>{EVIL}", "class_names": [EVIL] * 10}
        write(evil, objective("none"), seed, val=0.80, test=NONE[seed], about=about)
        write(evil, objective("hinton"), seed, val=0.88, test=KD[seed], about=about)
        write(evil, objective("hinton", 2.0), seed, val=0.87, test=KD[seed], about=about)
        write(evil, objective("at"), seed, val=0.84, test=AT[seed], about=about, fail=f"ValueError: {EVIL}" if seed == 2 else None)
    for name, folders in {"digits": [place / "digits"], "evil": [evil], "both": [place / "digits", evil]}.items():
        (place / f"{name}.html").write_text(build_page(folders), encoding="utf-8")
    return place


@pytest.mark.parametrize("name", ["digits", "evil", "both"])
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False), (1400, True)])
def test_nothing_is_requested_nothing_goes_wrong_and_the_page_is_no_wider_than_the_screen(browser, pages, name, width, dark):
    browser.open(pages / f"{name}.html", width, dark)
    assert browser.messages() == []
    assert browser.requests() == [(pages / f"{name}.html").as_uri()]
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return [...document.querySelectorAll('.chart svg.marks')].every((svg) => svg.clientWidth > 150)")
    captions = (
        "[...document.querySelectorAll('.scroll')].filter((box) => box.clientWidth).map((box) => [box, box.querySelector('caption span')])"
    )
    inside = "([box, words]) => words.getBoundingClientRect().right <= box.getBoundingClientRect().right"
    assert browser.run(f"return {captions}.every({inside})"), "a caption is cut off"


ALL = tuple(runs.parent.name for runs in sorted(RESULTS.glob("*/runs")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benches", "width", "dark", "largest"), [(("digits", "zoo_digits"), 1400, False, 2.5e6), (ALL, 390, True, 6e6)], ids=["two", "all"]
)
def test_the_benches_of_the_results_stand_on_one_page(browser, tmp_path, benches, width, dark, largest):
    page = tmp_path / "results.html"
    page.write_text(build_page([RESULTS / name for name in benches]), encoding="utf-8")
    assert page.stat().st_size < largest
    browser.open(page, width, dark)
    assert browser.messages() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.run("return document.querySelectorAll('.rows_marks').length") == browser.run(
        "return document.querySelectorAll('figure').length"
    )
    names = "section[aria-labelledby$='-pareto'] .mark-text.role-mark text"
    assert browser.run("return document.querySelectorAll(arguments[0]).length", names) > 20
    assert browser.run(NAMES_THAT_MEET) == []


def test_every_chart_has_as_many_marks_as_its_frame_has_rows(browser, pages):
    browser.open(pages / "digits.html")
    tables = tables_of(pages / "digits")
    expected = [(chart.title, len(chart.frame)) for kind in ChartKind for chart in charts_of(kind, tables)]
    script = """return [...document.querySelectorAll('figure[data-chart]')].map((figure) =>
        [Number(figure.dataset.chart), figure.querySelector('h4').textContent, figure.querySelectorAll('.rows_marks > *').length])"""
    drawn = [(title, count) for _, title, count in sorted(browser.run(script))]
    assert drawn == expected
    assert len(drawn) > 8


def test_names_that_are_html_stay_text(browser, pages):
    browser.open(pages / "evil.html")
    browser.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    browser.wait("return document.querySelectorAll('details.lazy table').length > 3")
    assert browser.run("return window.harm") is None
    assert browser.run("return document.querySelectorAll('img').length") == 0
    text = browser.run("return document.body.innerText")
    assert text.count(EVIL) > 3
    assert f"ValueError: {EVIL}" in text


def column(browser, name: str) -> list[str]:
    """The cells of a column of the first leaderboard, from top to bottom, of the rows that are shown."""
    script = """const table = document.querySelector('.table-box table');
        const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === arguments[0]);
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].textContent)"""
    return browser.run(script, name)


def heading(browser, name: str):
    return next(b for b in browser.driver.find_elements(By.CSS_SELECTOR, ".table-box th button") if b.text == name)


def test_a_heading_sorts_by_the_values_of_the_csv_both_ways_and_empty_cells_stay_last(browser, pages):
    browser.open(pages / "digits.html")
    board = pd.read_csv(DIGITS / "leaderboard.csv")
    board = board[board["collapsed"].isna()]
    names = {"none": "student alone"}
    by_difference = board[board["vs_kd"].notna()].sort_values("vs_kd", ascending=False, kind="stable")["method"].replace(names).tolist()
    heading(browser, "vs KD").click()
    assert column(browser, "method")[: len(by_difference)] == by_difference
    assert heading(browser, "vs KD").find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    heading(browser, "vs KD").send_keys(Keys.ENTER)
    assert column(browser, "method")[: len(by_difference)] == by_difference[::-1]
    assert set(column(browser, "method")[len(by_difference) :]) == {"teacher", "hinton"}
    heading(browser, "method").click()
    assert column(browser, "method") == sorted(board["method"].replace(names))


def test_words_filter_rows_and_say_how_many_are_left(browser, pages):
    browser.open(pages / "digits.html")
    whole = column(browser, "method")
    search = browser.driver.find_element(By.CSS_SELECTOR, ".table-box input[type=search]")
    search.send_keys("hint T=")
    assert column(browser, "method") == ["hinton"]
    assert browser.driver.find_element(By.CSS_SELECTOR, ".table-box output").text == f"1 of {len(whole)} rows"
    search.send_keys(" nothing")
    assert column(browser, "method") == []
    search.send_keys(Keys.CONTROL, "a")
    search.send_keys(Keys.BACKSPACE)
    assert column(browser, "method") == whole


def test_boxes_choose_columns(browser, pages):
    browser.open(pages / "digits.html")
    visible = """return [...document.querySelector('.table-box table').tHead.rows[0].cells]
        .filter((cell) => cell.offsetParent).map((cell) => cell.textContent)"""
    assert "memory" not in browser.run(visible)
    browser.driver.find_element(By.CSS_SELECTOR, ".table-box .tools summary").click()
    labels = {label.text: label for label in browser.driver.find_elements(By.CSS_SELECTOR, ".table-box fieldset label")}
    labels["memory"].click()
    labels["setting"].click()
    shown = browser.run(visible)
    assert "memory" in shown
    assert "setting" not in shown
    assert all(re.fullmatch(r"[\d.]+ [kM]?B|", cell) for cell in column(browser, "memory"))


def test_pointing_at_a_cell_of_a_heat_map_shows_its_setting_and_numbers(browser, pages):
    browser.open(pages / "digits.html")
    tables = tables_of(pages / "digits")
    row = next(row for _, row in tables.sweeps.iterrows() if row["chosen"] and row["method"] == "hinton")
    figure = next(f for f in browser.driver.find_elements(By.CSS_SELECTOR, "figure") if f.find_element(By.TAG_NAME, "h4").text == "hinton")
    browser.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", figure)
    at = tables.sweeps[tables.sweeps["method"] == "hinton"].index.get_loc(row.name)
    mark = figure.find_elements(By.CSS_SELECTOR, ".rows_marks > *")[at]
    ActionChains(browser.driver).move_to_element(mark).perform()
    browser.wait("return document.querySelector('#vg-tooltip-element.visible') !== null")
    tip = browser.driver.find_element(By.ID, "vg-tooltip-element").text
    assert row["setting"] in tip
    assert f"{100 * row['mean']:.2f}%" in tip
    assert f"{100 * row['chosen_share']:.0f}%" in tip


def test_lists_open_as_tables_with_every_run(browser, pages):
    browser.open(pages / "digits.html")
    runs = pd.read_csv(DIGITS / "runs.csv")
    lists = browser.driver.find_elements(By.CSS_SELECTOR, "details.lazy[data-frame$='-runs'], details.lazy[data-frame$='-specifications']")
    for one in lists:
        browser.run("arguments[0].open = true", one)
    browser.wait("return document.querySelectorAll('details.lazy table').length === 2")
    for one in lists:
        rows = browser.run("return [...arguments[0].querySelectorAll('tbody th')].map((cell) => cell.textContent)", one)
        assert sorted(rows) == sorted(runs["id"])
    values = browser.run(
        """const table = arguments[0].querySelector('table');
        const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === 'test_nll');
        const rows = [...table.tBodies[0].rows];
        return Object.fromEntries(rows.map((row) => [row.cells[0].textContent, Number(row.cells[at].dataset.value)]))""",
        lists[0],
    )
    assert values == dict(zip(runs["id"], runs["test_nll"], strict=True))


def contrast(one: str, other: str) -> float:
    """The ratio of two colours as WCAG defines it, from `rgb(1, 2, 3)`."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground_and_marks_do(browser, pages, dark):
    browser.open(pages / "digits.html", dark=dark)
    script = """const ground = (element) => { while (element) { const colour = getComputedStyle(element).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour; element = element.parentElement; } };
        return [...document.querySelectorAll('h1, p, dt, dd, th, td, a, summary, caption, legend, label, output, text')]
            .filter((e) => e.textContent.trim() && e.getClientRects().length)
            .map((e) => [e instanceof SVGElement ? (e.getAttribute('fill') === 'currentColor' ? getComputedStyle(e).color : null)
                : getComputedStyle(e).color, ground(e), e.textContent.trim().slice(0, 40), e.className])"""
    weak = [found for found in browser.run(script) if found[0] and contrast(*found[:2]) < 4.5]
    assert weak == []
    marks = """return [...document.querySelectorAll('.rows_marks path')].filter((mark) => !mark.closest('[class*=mark-rect]'))
        .map((mark) => getComputedStyle(mark).fill)"""
    ground = browser.run("return getComputedStyle(document.querySelector('.card')).backgroundColor")
    assert {colour: contrast(colour, ground) for colour in set(browser.run(marks)) if contrast(colour, ground) < 3} == {}


def test_tables_have_headings_and_captions_and_charts_say_in_words_what_they_show(browser, pages):
    browser.open(pages / "both.html")
    assert browser.run("return [...document.querySelectorAll('table')].filter((t) => !t.caption || !t.tHead).length") == 0
    assert browser.run("return document.querySelectorAll('th:not([scope])').length") == 0
    words = browser.run(
        "return [...document.querySelectorAll('.chart')].map((c) => [c.getAttribute('role'), c.getAttribute('aria-label')])"
    )
    assert all(role == "img" and len(label) > 40 for role, label in words)
    levels = browser.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert browser.run(
        "return new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size === document.querySelectorAll('[id]').length"
    )


def test_everything_that_can_be_used_is_reached_with_the_keyboard(browser, pages):
    browser.open(pages / "digits.html")
    body = browser.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert browser.run("return document.activeElement.textContent") == "Skip to the answer"
    reached = set()
    for _ in range(40):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        reached.add(browser.run("return document.activeElement.tagName + ' ' + document.activeElement.textContent.slice(0, 12)"))
    assert {"A Leaderboard", "INPUT ", "SUMMARY Columns", "BUTTON method"} <= reached


def test_what_is_printed_is_dark_on_white_without_what_only_a_screen_has(browser, pages):
    browser.open(pages / "digits.html", dark=True, media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("return getComputedStyle(document.querySelector('.chart')).color") == "rgb(0, 0, 0)"
    assert browser.run("return [...document.querySelectorAll('nav, .tools')].every((e) => getComputedStyle(e).display === 'none')")
    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 20_000
