"""Text from somewhere else (an exception, a name in a stranger's file), made harmless for the place it is written to. Free of torch."""

from __future__ import annotations

import re

LONGEST = 2000
"""characters of a text in a table: an exception may carry a whole tensor"""
FORMULA = ("=", "+", "-", "@")
"""how a cell begins that a spreadsheet takes for a formula"""
MARKDOWN = re.compile(r"[\\`|]|!(?=\[)|\](?=[(\[])")
"""what begins or ends code, an image, a link or a cell; brackets of an interval do neither"""
TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""what begins a tag of HTML; `<0.001` does not"""

PLAIN = {"±": "+-", "−": "-", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "×": "x", "·": "-", "…": "...", "²": "^2"}
"""what is written for a character that a terminal's encoding lacks"""


def ascii_text(text: str) -> str:
    """Text for a terminal without UTF-8."""
    return "".join(PLAIN.get(character, character) for character in text)


def one_line(text: object) -> str:
    """Text without line breaks, control characters and marks of direction, cut with an ellipsis where it is very long."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split(" ")).strip()
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def shortened(text: object, longest: int = 300) -> str:
    """Text on one line, cut between words with an ellipsis where it is longer."""
    plain = one_line(text)
    return plain if len(plain) <= longest else plain[:longest].rpartition(" ")[0].rstrip(" ,;:.") + " ..."


def csv_text(text: str) -> str:
    """Text for a cell of a CSV file: one line, and no formula when a spreadsheet opens the file."""
    plain = one_line(text)
    return f"'{plain}" if plain.startswith(FORMULA) else plain


def markdown_text(text: object) -> str:
    """Text for a cell of a Markdown table: one line, without HTML, links and column marks."""
    return TAG.sub("&lt;", MARKDOWN.sub(r"\\\g<0>", one_line(text)))
