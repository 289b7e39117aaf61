"""Whether and how W&B is used, from an option and the environment."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from kdzoo.errors import InputError, did_you_mean

_MODES: dict[str, Literal["online", "offline"] | None] = {
    "online": "online", "offline": "offline", "disabled": None,
    "run": "online", "dryrun": "offline", "": None,
}  # fmt: skip
"""what `--wandb` takes, then the older words that WANDB_MODE may hold too"""


_HOSTS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")


@dataclass(frozen=True)
class WandbSettings:
    """How W&B is used: `online` or `offline`, and where its runs go. note: a message about it, shown once."""

    mode: Literal["online", "offline"]
    project: str = "kdzoo"
    entity: str | None = None
    directory: str | None = None
    note: str | None = None


def wandb_settings(option: str | None, environ: Mapping[str, str]) -> WandbSettings | None:
    """The settings that an option and the environment ask for, the option first; None where nothing does.

    WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and WANDB_API_KEY are honoured; a key alone asks for nothing.
    Online without a key becomes offline with a note, since there is never a prompt.
    Raises InputError for an unknown mode, and where the option asks for W&B and it is not installed.
    """
    word, where = (option, "wandb") if option is not None else (environ.get("WANDB_MODE", ""), "WANDB_MODE")
    if word not in _MODES:
        raise InputError(f"{where}: expected online, offline or disabled, got {word!r}{did_you_mean(word, _MODES)}")
    mode, note = _MODES[word], None
    if mode is None:
        return None
    if option is not None and importlib.util.find_spec("wandb") is None:
        raise InputError("wandb: asked for, but not installed; pip install wandb")
    if mode == "online" and not _has_key(environ):
        mode = "offline"
        note = "wandb: no API key (WANDB_API_KEY or ~/.netrc), so it writes offline; `wandb sync` sends that later"
    return WandbSettings(
        mode, environ.get("WANDB_PROJECT") or "kdzoo", environ.get("WANDB_ENTITY") or None, environ.get("WANDB_DIR") or None, note
    )


def _has_key(environ: Mapping[str, str]) -> bool:
    """Whether W&B will find a key without asking for one."""
    if environ.get("WANDB_API_KEY") or environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    hosts = [environ["WANDB_BASE_URL"]] if environ.get("WANDB_BASE_URL") else _HOSTS
    for file in [environ["NETRC"]] if environ.get("NETRC") else [home / ".netrc", home / "_netrc"]:
        try:
            known = netrc.netrc(str(file))
        except (OSError, netrc.NetrcParseError):
            continue
        return any(known.authenticators(urlsplit(host).netloc) for host in hosts)
    return False
