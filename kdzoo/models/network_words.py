"""The words by which a user says where a network comes from. Free of torch."""

from __future__ import annotations

from pathlib import Path

from kdzoo.errors import InputError

SAVED = "saved:"
"""what begins the words for a saved teacher"""
HF = "hf:"
"""what begins the words for a folder in Hugging Face's form"""
RANDOM = ":random"
"""what ends the words for a network that starts from random weights"""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
"""how the name of a file of weights ends"""


def is_file(path: str) -> bool:
    """Whether a path, which may begin with `~`, leads to a file."""
    try:
        return bool(path) and Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, the home of nobody, a zero byte
        return False


def existing_file(words: str, path: str) -> Path:
    """The file that words for a network name by a path; raises InputError where there is none."""
    if not is_file(path):
        raise InputError(f"network {words!r}: no such file: {path}")
    return Path(path).expanduser()


def folder_in(words: str) -> str:
    """The path in `hf:FOLDER` or `hf:FOLDER:random`."""
    return words.removeprefix(HF).removesuffix(RANDOM)


def existing_folder(words: str, path: str) -> Path:
    """The folder that words for a network name by a path; raises InputError where there is none."""
    try:
        folder = Path(path).expanduser()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError):
        there = False
    if not there:
        raise InputError(f"network {words!r}: no such folder: {path}")
    return folder


def is_path(words: str) -> bool:
    """Whether words without options name a file of weights by its path alone, not after an architecture and a colon."""
    return words.endswith(WEIGHT_FILES) and (":" not in words or is_file(words))


def refuse_missing(words: str) -> None:
    """Raise InputError where words for a network name a file or folder that is not there; words with options after an `@` pass."""
    if "@" in words:
        return
    if words.startswith(SAVED):
        existing_file(words, words.removeprefix(SAVED))
    elif words.startswith(HF):
        existing_folder(words, folder_in(words))
    elif is_path(words):
        existing_file(words, words)
    elif words.endswith(WEIGHT_FILES):
        existing_file(words, words.partition(":")[2])
