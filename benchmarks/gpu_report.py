"""The results of gpu.py as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Record = dict[str, Any]
REASON_CHARACTERS = 120


def markdown(content: Record) -> str:
    """All that was measured as tables, then what failed and what was not reached."""
    where = content["environment"]
    lines = [f"# On {where['device']}", "", f"torch {where['torch']}, commit {where['git']}, {content.get('seconds', 0):.0f} s"]
    lines += table(("target", "batch", "asked", "found", "how", "verdict"), target_rows(content))
    lines += table(
        ("pair", "batch", "way", "new views: s an epoch", "remembered: s an epoch", "s for 240 epochs a run"), epoch_rows(content)
    )
    lines += table(("check", "found", "asked", "holds"), check_rows(content))
    lines += table(("pair", "batch", "side", "images/s", "s for 240 epochs a run", "ms a step"), speed_rows(content))
    lines += table(("pair", "batch", "runs", "graphs", "way", "ms a step of all runs"), job_rows(content))
    lines += table(("network", "batch", "side", "ms a step", "making s", "breaks even after steps"), compiled_rows(content))
    lines += table(("pair", "batch", "side", "launches a step", "waits", "reads", "device busy"), bound_rows(content))
    if "study" in content:
        study = content["study"]
        lines += ["", f"{study['pair']} by {study['recipe']}, {study['seconds']:.0f} s:"]
        lines += table(("run", "epochs", "test top-1"), ((run["id"], run["epochs"], number(run["test_top1"])) for run in study["runs"]))
    lines += ["", *(f"Failed: {name}: {text.strip().splitlines()[-1]}" for name, text in content["failed"].items())]
    lines += [f"Not reached in time: {', '.join(content['not_reached'])}"] if content["not_reached"] else []
    return "\n".join(lines).rstrip() + "\n"


def target_rows(content: Record) -> Iterator[Sequence[object]]:
    for row in content.get("targets", []):
        unit = "%" if "accuracy" in row["target"] else "s"
        asked = "" if row["asked"] is None else f"{row['asked']:g} {unit}"
        found = "" if row["found"] is None else f"{row['found']:.1f} s"
        yield row["target"], row["batch"], asked, found, row["side"] or "", row["verdict"]


def epoch_rows(content: Record) -> Iterator[Sequence[object]]:
    for cell in content.get("epochs", []):
        where = (cell["pair"], cell["batch"])
        for name, way in cell["ways"].items():
            seconds = (way["cold_epoch_seconds"], way["warm_epoch_seconds"], way["seconds_for_240_epochs"])
            yield *where, f"{name} in {cell['precision']}", *(f"{value:,.2f}" for value in seconds)
        for name, reason in cell["left_out"].items():
            yield *where, name, reason[:REASON_CHARACTERS], "", ""


def check_rows(content: Record) -> Iterator[Sequence[object]]:
    for check in content.get("correct", []):
        yield check["check"], number(check["found"]), number(check["asked"]), "yes" if check["holds"] else "**no**"


def speed_rows(content: Record) -> Iterator[Sequence[object]]:
    for cell in [*content.get("speed", []), *content.get("filled", []), *content.get("compiled", [])]:
        layout = {None: "", True: ", channels last", False: ", channels first"}[cell.get("channels_last")]
        where = (f"{cell['pair']}{' in bfloat16' if 'bfloat16' in cell['name'] else ''}{layout}", cell["batch"])
        for name, side in cell["sides"].items():
            yield *where, name, f"{side['images_per_second']:,.0f}", f"{side['seconds_for_240_epochs']:,.1f}", ms(side["step_seconds"])
        for name, reason in cell["left_out"].items():
            yield *where, name, reason.splitlines()[0][:REASON_CHARACTERS], "", ""


def job_rows(content: Record) -> Iterator[Sequence[object]]:
    for cell in content.get("jobs", []):
        where = (cell["pair"], cell["batch"], cell["runs"], "yes" if cell["graphs"] else "no")
        for way, seconds in cell["of"].items():
            yield *where, f"**{way}**" if way == cell["best"] else way, ms(seconds)
        for way, reason in cell["left_out"].items():
            yield *where, way, reason[:REASON_CHARACTERS]


def compiled_rows(content: Record) -> Iterator[Sequence[object]]:
    for cell in content.get("compiled", []):
        for side in cell["student"]:
            pays = "" if side["side"] == "eager" else "never" if side["breaks_even_after"] is None else side["breaks_even_after"]
            yield side["network"], side["batch"], side["side"], ms(side["step_seconds"]), f"{side['making_seconds']:.1f}", pays


def bound_rows(content: Record) -> Iterator[Sequence[object]]:
    for cell in content.get("bounds", []):
        for name, of in cell["of"].items():
            if "left_out" in of:
                yield cell["pair"], cell["batch"], name, of["left_out"][:REASON_CHARACTERS], "", "", ""
            else:
                busy = "" if of["device_busy"] is None else f"{of['device_busy']:.0%}"
                yield cell["pair"], cell["batch"], name, f"{of['launches']:.0f}", f"{of['waits']:.1f}", f"{of['reads']:.1f}", busy


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table; none without rows."""
    filled = [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    return ["", f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *filled] if filled else []


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def number(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
