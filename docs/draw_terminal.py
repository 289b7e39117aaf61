"""Draw what a command prints in a terminal of 100 columns as an SVG.

The picture of the README: `python docs/draw_terminal.py docs/terminal.svg kdzoo leaderboard results/digits`.
"""

import inspect
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 100


def output_of(command: list[str], columns: int = COLUMNS) -> str:
    """What a command prints to a terminal of so many columns, with its colours."""
    environment = {**os.environ, "COLUMNS": str(columns), "FORCE_COLOR": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def drawing(command: list[str], output: str, columns: int = COLUMNS) -> str:
    """The SVG of a terminal that shows a command and its output, in the fonts of the reader's machine."""
    console = Console(width=columns, record=True, file=open(os.devnull, "w"), force_terminal=True, color_system="truecolor")  # noqa: SIM115
    console.print(Text.assemble(("$ ", "bold green"), (" ".join(command), "bold")))
    console.print(Text.from_ansi(output))
    template = inspect.signature(console.export_svg).parameters["code_format"].default
    return console.export_svg(title="kdzoo", code_format=without_remote_fonts(template), unique_id="terminal")


def without_remote_fonts(template: str) -> str:
    """Rich's template without its web fonts: the picture then looks the same with a network and without one."""
    style, rest = template.split("<style>", 1)
    return style + "<style>" + rest[rest.index(".{unique_id}-matrix") :].replace("Fira Code, monospace", "DejaVu Sans Mono, monospace")


if __name__ == "__main__":
    path, *words = sys.argv[1:]
    Path(path).write_text(drawing(words, output_of(words)))
