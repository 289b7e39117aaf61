"""Benches that are trained in the process of their caller: because it alone has what they name, or because the launcher says so."""

from __future__ import annotations

from pathlib import Path

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.known import DATA
from kdzoo.errors import collect_problems
from kdzoo.models import names
from kdzoo.models.kernels import set_workspace
from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.run.launchers import launcher_name
from kdzoo.suite.run.torchrun import NAME as TORCHRUN
from kdzoo.training.located import Modules
from kdzoo.training.run_networks import members_of


def known_to_workers(config: BenchConfig, plan: Plan, modules: Modules) -> bool:
    """Whether a worker process finds all that a bench names: in kdzoo, an installed package, or one of its plugin files."""
    if modules.by_name:
        return False
    files = {str(Path(file).resolve()) for file in config.plugin}
    homes = {REGISTRY.plugin_of(name) for text in config.methods for name in parse_request(text).terms}
    homes |= {names.plugin_with(one.name) for planned in (*plan.students, *plan.teachers.values()) for one in _networks(planned)}
    homes |= {DATA.plugin_of(name) for name in (config.data, config.transfer_data) if name is not None}
    return homes <= {None, *files}


def problems_in_caller(config: BenchConfig, device: str | None, plan: Plan, modules: Modules) -> list[str]:
    """Why a bench cannot be executed as its options say, where it is trained in this process."""
    if not (config.fill_gpu or config.deterministic):
        return []
    problems: list[str] = []
    known = known_to_workers(config, plan, modules)
    if config.fill_gpu and not known:
        problems.append(
            "fill_gpu: measures in processes of its own, which lack the networks, methods or data of this script; leave it out, or "
            "register them in a file and name that as plugin"
        )
    in_caller = not known or launcher_name(config.launcher) in ("here", TORCHRUN)
    if config.deterministic and in_caller and (device or "").startswith("cuda"):
        with collect_problems(problems):
            set_workspace()
    return problems


def _networks(planned: PlannedRun) -> list[NetworkSpec]:
    """The networks of a run, those of an ensemble each."""
    run, paths = planned.run, planned.about["paths"]
    taught = [] if run.teacher is None else [one for one, _ in members_of(run.teacher, paths.get("teacher"))] or [run.teacher]
    return [run.student, *taught]
