"""Definitions that cannot be called as the contract calls a method: refused where they are registered, with what to write instead."""

from __future__ import annotations

import inspect
from typing import Any

from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs, NetworkNeeds, Pass
from kdzoo.contract.registry import definition_of
from kdzoo.errors import InputError, did_you_mean


def refuse_needs(name: str, needs: object) -> None:
    """Raises InputError for `needs` that are not a Need."""
    if needs is None or isinstance(needs, Need | Pass | NetworkNeeds | Needs):
        return
    words = [needs] if isinstance(needs, str) else list(needs) if isinstance(needs, list | tuple | set) else []
    members = [str(word.name if isinstance(word, Need | Pass) else word).rpartition(".")[2].upper() for word in words]
    homes = {member: kind.__name__ for kind in (Need, Pass) for member in kind.__members__}
    names = [member for member in members if member in homes]
    instead = " | ".join(f"kdzoo.{homes[member]}.{member}" for member in names) or "kdzoo.Need.LOGITS | kdzoo.Need.STAGES"
    near = did_you_mean(members[0], homes) if members and not names else ""
    raise InputError(f"register({name!r}): needs: expected {'' if names else 'for example '}needs={instead}, got {needs!r}{near}")


def refuse_definition(name: str, definition: Any) -> None:
    """Raises InputError for what is neither a Method class with a loss nor a function."""
    loss = definition if inspect.isfunction(definition) else getattr(definition, "loss", None)
    if inspect.iscoroutinefunction(loss) or inspect.isgeneratorfunction(loss):
        instead = "write `return`, not `yield`" if inspect.isgeneratorfunction(loss) else "write `def`, not `async def`"
        raise InputError(f"register({name!r}) at {definition_of(definition).place}: the loss has to return a scalar tensor: {instead}")
    if inspect.isfunction(definition):
        return
    if not inspect.isclass(definition):
        raise InputError(f"register({name!r}): expected a kdzoo.Method class or a function, got {definition!r}")
    where = f"register({name!r}) at {definition_of(definition).place}"
    if not issubclass(definition, Method):
        from torch import nn

        module = "; an nn.Module is what its build() returns, and loss() gets it as `module`" if issubclass(definition, nn.Module) else ""
        raise InputError(
            f"{where}: expected a kdzoo.Method class or a function, got the class {definition.__name__}: write "
            f"class {definition.__name__}(kdzoo.Method) with loss(self, student, teacher, batch, module){module}"
        )
    if definition.loss is Method.loss:
        others = [act for act in ("forward", "__call__") if act in vars(definition)]
        instead = f"; rename its {others[0]}()" if others else ""
        raise InputError(f"{where}: {definition.__name__} has no loss(self, student, teacher, batch, module){instead}")


def refuse_signatures(name: str, cls: type[Method], definition: Any) -> None:
    """Raises InputError, with all of them, for methods of a class that cannot be called as the contract calls them."""
    problems = []
    for act in ("loss", "build", "groups", "deploy", "ramp"):
        theirs, ours = getattr(cls, act), getattr(Method, act)
        if theirs is ours:
            continue
        parameters = list(inspect.signature(ours).parameters)
        try:
            inspect.signature(theirs).bind(*parameters)
        except TypeError:
            got = ", ".join(map(str, inspect.signature(theirs).parameters.values()))
            line = f"{definition_of(theirs).place}: expected {act}({', '.join(parameters)}), got {act}({got})"
            problems.append(f"method {name!r} at {line}")
    if problems:
        raise InputError(*problems)
