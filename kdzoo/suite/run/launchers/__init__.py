"""Launchers by name. Free of torch: a launcher that needs it is imported when it is created."""

from __future__ import annotations

import os
from collections.abc import Callable

from kdzoo.contract.registry import Registry
from kdzoo.suite.run.launchers.launcher import Launcher, LauncherSetup

__all__ = ["LAUNCHERS", "LauncherSetup", "create_launcher", "launcher_name"]

CHOICE = "KDZOO_LAUNCHER"
"""the variable of the environment that names the launcher"""


def _local(setup: LauncherSetup) -> Launcher:
    from kdzoo.suite.run.launchers.local import Local

    return Local(setup)


def _here(setup: LauncherSetup) -> Launcher:
    from kdzoo.suite.run.launchers.here import Here

    return Here(setup.modules)


def _torchrun(setup: LauncherSetup) -> Launcher:
    from kdzoo.suite.run.followers import TorchrunFollowers
    from kdzoo.suite.run.launchers.here import Here

    return Here(setup.modules, TorchrunFollowers(setup.plugins))


def _print(setup: LauncherSetup) -> Launcher:
    from kdzoo.suite.run.launchers.print import create

    return create(setup)


def _slurm(setup: LauncherSetup) -> Launcher:
    from kdzoo.suite.run.launchers.slurm import create

    return create(setup)


def _ray(setup: LauncherSetup) -> Launcher:
    from kdzoo.suite.run.launchers.ray import create

    return create(setup)


LAUNCHERS: Registry[Callable[[LauncherSetup], Launcher]] = Registry(
    "launcher", {"local": _local, "here": _here, "torchrun": _torchrun, "print": _print, "slurm": _slurm, "ray": _ray}
)


def launcher_name(name: str | None) -> str:
    """The launcher that is taken: the one that is asked for, or that of KDZOO_LAUNCHER, or `local`."""
    return name or os.environ.get(CHOICE) or "local"


def create_launcher(setup: LauncherSetup, name: str | None = None) -> Launcher:
    """The launcher of a name, or `launcher_name` where none is given. Raises InputError for an unknown name."""
    return LAUNCHERS.get(launcher_name(name))(setup)
