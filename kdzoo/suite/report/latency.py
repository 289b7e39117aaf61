"""How long the students of a bench take for an image: times that other programs can only have lengthened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdzoo.suite.report.bench import BenchRecords

LATENCY = "student_milliseconds"
"""its name in result.json and its column in tables, which only benches have that measured it"""
MACHINE = ("device", "cpu", "threads")
"""what times depend on, of a run's environment"""


def latencies(bench: BenchRecords) -> Mapping[tuple[Any, ...], float]:
    """The shortest time that any run measured of each student, by `student_key`.

    Nothing where runs were measured on different machines, or with different numbers of threads: such times are not compared.
    """
    found: dict[tuple[Any, ...], float] = {}
    machines = set()
    for record in bench.records:
        result = record.result or {}
        value = (result.get("cost") or {}).get(LATENCY)
        if value is not None:
            machines.add(tuple(result["environment"].get(name) for name in MACHINE))
            key = student_key(result)
            found[key] = min(value, found.get(key, value))
    return found if len(machines) == 1 else {}


def student_key(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """What students have in common that take the same time: the network as it ships, whoever taught it."""
    student = result["student"]
    return student["name"], student["parameters"], student["macs"]
