"""Tables for LaTeX, compiled where there is a LaTeX."""

import shutil
import subprocess

import pandas as pd
import pytest

from kdzoo.suite.report.render import render
from kdzoo.tasks.classification import CLASSIFICATION

HARMFUL = ["a_b", "50 %", "x & y", "$1", "#2", r"\end{tabular}", "~", "^", "{", "}", "[0.1, -0.2]", "* star", "<0.001", "±", "-1.5", "a-b"]


def latex(frame: pd.DataFrame) -> list[str]:
    return render(frame, "latex", CLASSIFICATION).splitlines()


def test_the_rules_are_those_of_booktabs_and_numbers_stand_to_the_right():
    lines = latex(pd.DataFrame({"method": ["hinton", "at"], "test_top1": [0.5, 0.25], "vs_kd": [None, -0.25]}))
    assert lines == [
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & test\_top1 & vs\_kd \\",
        r"\midrule",
        r"hinton & 50.00 &  \\",
        r"at & 25.00 & $-$25.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_what_would_be_taken_for_an_argument_of_the_line_before_is_protected_and_hyphens_stay():
    lines = latex(pd.DataFrame({"x": ["[0.1, -0.2]", "* star", "a-b", "1-2"]}))
    assert [line.removesuffix(r" \\") for line in lines[5:9]] == ["{[}0.1, $-$0.2]", "{*} star", "a-b", "1-2"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no LaTeX here")
def test_it_compiles_whatever_the_cells_hold(tmp_path):
    table = render(pd.DataFrame({"name": HARMFUL, "again": HARMFUL[::-1]}), "latex", CLASSIFICATION)
    document = "\n".join([r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}", table, r"\end{document}"])
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-500:]
    assert (tmp_path / "t.pdf").stat().st_size > 1000
