"""A bench's leaderboard in W&B, beside the runs that its workers log there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kdzoo.runs.events import Emit, Note
from kdzoo.runs.wandb import WandbLogger, offline_runs
from kdzoo.runs.wandb_settings import WandbSettings
from kdzoo.suite.plan.config import BenchConfig

RUN = "leaderboard"
"""the name of the bench's own run in W&B"""


def log_leaderboard(settings: WandbSettings, folder: Path, config: BenchConfig, board: pd.DataFrame, done: int, emit: Emit) -> None:
    """Log a leaderboard as a table in a run of the bench's own, with the bench's configuration.

    done: how many runs are finished; the table is logged again when there are more. Where the runs are offline a note
    says where they are and how to upload them.
    """

    def note(text: str) -> None:
        emit(Note(text))

    rows = board.astype(object).where(board.notna(), None).to_numpy().tolist()
    logger = WandbLogger(settings, config.name, RUN, config.model_dump(mode="json"), folder / "wandb-step.txt", note)
    logger.table(RUN, list(map(str, board.columns)), rows, step=done)
    logger.finish({})
    logger.close()
    if (runs := offline_runs(settings, config.name)) is not None:
        note(f"wandb: the offline runs of this bench are in {runs.parent.resolve()}; to upload them: wandb sync {runs}")
