"""Vega, Vega-Lite and vega-embed as one script, from vl-convert, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

import altair
import vl_convert

from kdzoo.files import cache_folder, read_file
from kdzoo.runs.atomic import StoreError, write_bytes


def vega_lite(written: str, drawn: Sequence[str]) -> str:
    """The version of Vega-Lite to draw with, such as `v6.4`: the newest that vl-convert has and that is not newer than altair's.

    written: what altair writes, such as `v6.4.0`; drawn: what vl-convert has. The two packages are released apart.
    """
    latest = _numbers(written)[:2]
    able = [version for version in drawn if _numbers(version)[:2] <= latest]
    return f"v{max(able or drawn, key=_numbers)}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.removeprefix("v").split(".")))


VEGA_LITE = vega_lite(altair.SCHEMA_VERSION, vl_convert.get_vegalite_versions())
"""what pages and files are drawn with"""
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
