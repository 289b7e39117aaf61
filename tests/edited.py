"""JSON files of kdzoo's own that are made to say something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdzoo.runs.sealed_json import DIGEST, with_digest


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Change what a file says, and give it the digest of that, as somebody does who knows of it; what it says now."""
    content = json.loads(file.read_text())
    content.pop(DIGEST, None)
    change(content)
    write_edited(file, content)
    return content


def write_edited(file: Path, content: dict[str, Any]) -> None:
    """Write what may be no JSON, such as NaN, as kdzoo lays it out, with its digest."""
    file.write_bytes(with_digest((json.dumps(content, indent=1, sort_keys=True) + "\n").encode()))
