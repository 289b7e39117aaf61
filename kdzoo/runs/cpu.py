"""The model of this machine's CPU. Free of torch."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from pathlib import Path


@cache
def cpu_model() -> str | None:
    """The CPU's model as the system names it, on Linux with its numbers; None where it does not."""
    system = platform.system()
    if system == "Linux":
        return model_in(_text_of(Path("/proc/cpuinfo"))) or platform.processor() or None
    if system == "Darwin":
        return output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or None


def model_in(cpuinfo: str) -> str | None:
    """The first model named in the text of Linux's /proc/cpuinfo; None where none is, as on most ARM machines.

    Its family and number stand behind it, since virtual machines call several generations by one name.
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        field, colon, value = line.partition(":")
        if colon:
            fields.setdefault(field.strip(), value.strip())
    name = fields.get("model name")
    numbers = [f"{word} {fields[field]}" for word, field in (("family", "cpu family"), ("model", "model")) if field in fields]
    return name if name is None or not numbers else f"{name} ({', '.join(numbers)})"


def output_of(*command: str) -> str | None:
    """What a program prints; None where it is not there, fails or prints nothing."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None


def _text_of(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
