"""What a list loads before it is printed: a user's files; and methods' declarations, read without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any


def reads_declarations(command: Callable[..., int]) -> Callable[..., int]:
    """Let a command read methods' declarations without importing torch: it runs no method."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> int:
        from kdzoo.contract.methods import REGISTRY

        with REGISTRY.declarations():
            return command(*args, **options)

    return run


def load_plugin_files(plugin: Sequence[str] | None) -> None:
    """Run the user's files, so that what they register is listed; without any, nothing is imported for it."""
    if plugin:
        from kdzoo.contract.plugins import load_plugins

        load_plugins(plugin)
