"""Text from somewhere else (an exception, a name in a stranger's file), made harmless for the place it is written to. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping

LONGEST = 2000
"""characters of a text in a table: an exception may carry a whole tensor"""
LONGEST_REASON = 300
"""characters of another library's message inside one of kdzoo's"""
FORMULA = ("=", "+", "-", "@")
"""how a cell begins that a spreadsheet takes for a formula"""
MARKDOWN = re.compile(r"[\\`|]|!(?=\[)|\](?=[(\[])")
"""what begins or ends code, an image, a link or a cell; brackets of an interval do neither"""
NOT_ZERO = re.compile(r"[1-9n]")
"""what a number has that is not written as zero: a digit, or the n of nan and inf"""
TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""what begins a tag of HTML; `<0.001` does not"""
PLAIN = {"±": "+-", "−": "-", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "×": "x", "·": "-", "…": "...", "²": "^2"}
"""what is written for a character that a terminal's encoding lacks; a question mark for all others"""


def ascii_text(text: str) -> str:
    """Text for a terminal without UTF-8."""
    return "".join(PLAIN.get(character, character) for character in text)


def number_of(count: int, noun: str, plural: str = "") -> str:
    """`1 run`, `1,438 runs`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def are(count: int, noun: str, plural: str = "") -> str:
    """`1 run is`, `2 runs are`."""
    return f"{number_of(count, noun, plural)} {'is' if count == 1 else 'are'}"


def format_number(value: float, form: str) -> str:
    """A number in a format such as `+.2f`; one that rounds to zero has no sign."""
    text = f"{value:{form}}"
    return text if NOT_ZERO.search(text) else text.lstrip("+-")


def one_line(text: object) -> str:
    """Text without line breaks, control characters and marks of direction, shortened where it is very long."""
    return shortened(" ".join("".join(c if c.isprintable() else " " for c in str(text)).split(" ")).strip(), LONGEST)


def shortened(text: str, width: int) -> str:
    """Text of at most `width` characters, cut at the end of a word, with an ellipsis; a single longer word is cut inside."""
    if len(text) <= width:
        return text
    head = text[: width - 2]
    whole = head if text[width - 2].isspace() else head.rpartition(" ")[0]
    return f"{whole.rstrip()} …" if whole.strip() else f"{text[: width - 1]}…"


def first_line(text: object, width: int = LONGEST_REASON) -> str:
    """The first line of another library's message, as one of kdzoo's quotes it."""
    return shortened(str(text).strip().partition("\n")[0], width)


def in_encoding(text: str, encoding: str) -> str:
    """Text in the characters that an encoding has: PLAIN's for the others."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        known = "".join(PLAIN.get(character, character) if not _fits(character, encoding) else character for character in text)
        return known.encode(encoding, "replace").decode(encoding)
    except LookupError:
        return text
    return text


def _fits(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def columns_that_fit(widths: Mapping[str, int], room: int, *, gap: int) -> list[str]:
    """The columns of a table that fit into `room` characters: of those named, in their order, each one that fits beside those
    before it; the first always.

    gap: characters between two columns.
    """
    fitting: list[str] = []
    width_so_far = -gap
    for name, width in widths.items():
        if not fitting or width_so_far + gap + width <= room:
            fitting.append(name)
            width_so_far += gap + width
    return fitting


def csv_text(text: str) -> str:
    """Text for a cell of a CSV file: one line, and no formula when a spreadsheet opens the file."""
    plain = one_line(text)
    return f"'{plain}" if plain.startswith(FORMULA) else plain


def code_text(text: str) -> str:
    """Text as inline code in Markdown: one line, without a backtick that would end it."""
    return f"`{one_line(text).replace('`', '')}`"


def markdown_text(text: object) -> str:
    """Text for a cell of a Markdown table: one line, without HTML, links and column marks."""
    return TAG.sub("&lt;", MARKDOWN.sub(r"\\\g<0>", one_line(text)))
