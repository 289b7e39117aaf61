"""Words of the command line as the configuration of a bench, without running it."""

from pathlib import Path

from kdzoo.cli.app import app
from kdzoo.cli.bench_options import BENCH, read_options
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.layers import bench_config


def bench_of(*words: str, file: Path | None = None) -> BenchConfig:
    """What `kdzoo bench WORDS` is configured as, over a YAML file."""
    options = app.commands["bench"].make_context("bench", list(words)).params
    keys = {name: options[name] for name in BENCH}
    return bench_config(read_options(keys, small_stem=options["small_stem"]), file)
