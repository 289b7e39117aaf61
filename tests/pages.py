"""A page of the documentation, followed to the letter in an empty folder."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from warm_python import run_warm

DOCS = Path(__file__).resolve().parent.parent / "docs"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)


@dataclass(frozen=True)
class Ran:
    command: str
    status: int
    said: str


@dataclass(frozen=True)
class Page:
    """A page's text; its first comment names the file that a block of Python or YAML is."""

    text: str

    def blocks(self, *languages: str) -> list[str]:
        return [code for name, code in FENCE.findall(self.text) if name in languages]

    @property
    def files(self) -> dict[str, str]:
        return {code.partition("\n")[0].removeprefix("# "): code for code in self.blocks("python", "yaml")}

    def follow(self, folder: Path) -> list[Ran]:
        """Write its files and run its commands in `folder`, from top to bottom."""
        ran = []
        for language, code in FENCE.findall(self.text):
            if language in ("python", "yaml"):
                (folder / code.partition("\n")[0].removeprefix("# ")).write_text(code)
            elif language == "bash":
                ran += [run(line, folder) for line in code.strip().splitlines()]
        return ran


def page(name: str) -> Page:
    return Page((DOCS / name).read_text())


def run(command: str, folder: Path) -> Ran:
    words = shlex.split(command, comments=True)
    started = {"kdzoo": [sys.executable, "-m", "kdzoo"], "python": [sys.executable]}[words[0]]
    environment = {**os.environ, "KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled", "COLUMNS": "200"}
    done = run_warm([*started, *words[1:]], cwd=folder, env=environment)
    return Ran(command, done.returncode, done.stdout + done.stderr)
