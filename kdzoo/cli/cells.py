"""Values as the cells of a table show them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from rich.text import Text

from kdzoo.text import number_of


def cell_text(value: object) -> str:
    """A cell: nothing for None, numbers without noise, lists and mappings between commas."""
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case Mapping():
            return ", ".join(f"{key}={cell_text(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(map(cell_text, value))
        case bool():
            return "yes" if value else "no"
    return str(value)


def compact(count: int | None) -> str:
    """A count to three digits: `590`, `70.3 k`, `278 k`, `1.07 M`, `1.30 G`."""
    if count is None:
        return ""
    if count < 1000:
        return str(count)
    size, unit = next((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= 0.9995 * size)
    number = count / size
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f} {unit}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2,877 h (120 days)`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h ({number_of(round(hours / 24), 'day')})"


def link(words: str, url: str | None) -> Text:
    """Words that lead to a URL, in a terminal that knows links; plain words in any other and in a pipe."""
    return Text(words, style=Style(link=url) if url else "")
