"""`kdzoo pairs`: the named pairs of teacher and student."""

from __future__ import annotations

from kdzoo.cli.cells import cell_text, link
from kdzoo.cli.loading import load_plugin_files
from kdzoo.cli.options import AsJson, FormatOption, Plugins, chosen_format
from kdzoo.cli.references import reference
from kdzoo.cli.table import Column, Format, field, print_rows


def pairs(plugin: Plugins = None, output_format: FormatOption = Format.table, as_json: AsJson = False) -> int:
    """List the named pairs of teacher and student, with the top-1 (%) that the literature reports for each alone.

    Any two networks make a pair too: --pairs TEACHER/STUDENT.

    \b
    Example:
      kdzoo pairs
    """
    from kdzoo.models.pairs import PAIRS

    load_plugin_files(plugin)
    rows = [
        {
            "pair": pair.name,
            "data": pair.data,
            "teacher": pair.teacher,
            "student": pair.student,
            "teacher_top1": pair.published and pair.published[0],
            "student_top1": pair.published and pair.published[1],
            "source": pair.source or None,
        }
        for pair in PAIRS.values()
    ]
    print_rows(
        rows,
        chosen_format(output_format, as_json),
        columns=(
            field("pair"),
            Column("data", lambda row: row["data"]),
            Column("top-1 reported", lambda row: f"{row['teacher_top1']:.2f} / {row['student_top1']:.2f}" if row["teacher_top1"] else ""),
            Column("source", lambda row: link(reference(row["source"]), row["source"])),
            field("teacher"),
            field("student"),
            Column("url", lambda row: cell_text(row["source"])),
        ),
    )
    return 0
