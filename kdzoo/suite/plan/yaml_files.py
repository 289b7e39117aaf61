"""YAML as a user writes it: files of keys and values, and `key=value` on a command line. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kdzoo.errors import InputError
from kdzoo.files import CONFIGS
from kdzoo.text import first_line


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping; raises InputError with file and line when there is none."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise InputError(f"config: cannot read {path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"config: {path}:{line}: {error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"config: {path}: not valid YAML ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"config: {path}: expected keys and values")
    return content


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """`key=value` texts as a mapping, values read as YAML; raises InputError for what has no `=`."""
    texts = list(texts)
    wrong = [text for text in texts if "=" not in text]
    if wrong:
        raise InputError(*[f"--set {text}: expected key=value" for text in wrong])
    return {key.strip(): _yaml_value(key.strip(), value) for key, _, value in (text.partition("=") for text in texts)}


def _yaml_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: expected a value as YAML has it, got {text!r}") from error


@cache
def shipped_files(kind: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((CONFIGS / kind).glob("*.yaml"))}
