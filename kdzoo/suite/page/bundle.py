"""Vega, Vega-Lite and vega-embed as one script, from vl-convert, without a network."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import version

import altair
import vl_convert

from kdzoo.files import cache_folder, read_file
from kdzoo.runs.atomic import StoreError, write_bytes

VEGA_LITE = altair.SCHEMA_VERSION.rpartition(".")[0]
"""the version of Vega-Lite that altair writes, such as v6.4; charts as files are drawn by the same one"""
START = "window.vegaEmbed = vegaEmbed;"


def javascript() -> str:
    """The script, which sets `vegaEmbed`: made once for a version of vl-convert (four seconds), then read from the cache folder."""
    file = cache_folder() / "javascript" / f"vl-convert-{version('vl-convert-python')}-{VEGA_LITE}.js"
    try:
        return read_file(file).decode()
    except (OSError, UnicodeDecodeError):  # not made yet, or not by kdzoo
        script = str(vl_convert.javascript_bundle(START, VEGA_LITE))
    with suppress(StoreError):  # a cache that takes no file costs time, not the page
        write_bytes(file, script.encode())
    return script
