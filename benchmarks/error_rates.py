"""How often the tables' intervals and p-values are wrong: simulated benches, judged by the very functions of the tables.

    python benchmarks/error_rates.py --write results/statistics       # 20,000 benches a line, some minutes on one core
    python benchmarks/error_rates.py --benches 500

A bench is KD, the student alone and further methods, I rows in all, with n seeds each. Every row's true accuracy is the
same but for the one row that KD is to be told from, so that every difference found elsewhere is an error. One sd is half
a point; what a seed does to all rows alike has one sd too. (Not called statistics.py: the scripts beside it import the
standard library's module of that name.)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from kdzoo.suite.report.error_model import Contrast, ErrorModel, independent_model, paired_model
from kdzoo.suite.report.rules import is_collapsed

BENCHES, SEED = 20_000, 0
SD, BASE, VAL_IMAGES = 0.005, 0.9, 5_000
EFFECT = 3.0
"""sds by which the student alone stands below KD, where power is measured"""
SMALL_EFFECT = 2.0
"""the same for the comparison of control seeds, where power for EFFECT is close to 1 whatever is done"""
COLLAPSE, COLLAPSED_SD = -80.0, 10.0
LOW, HIGH = 0.75, 3.0
TARGET, TARGET_UNEQUAL, POWER_LOST, TARGET_SEEDS = 0.06, 0.10, 0.05, 5


@dataclass(frozen=True)
class Scenario:
    """sds: of all rows, KD first and then the student alone, in units of SD. collapsed: how many rows, from the end, collapse."""

    name: str
    sds: tuple[float, ...]
    collapsed: int = 0

    @property
    def rows(self) -> int:
        return len(self.sds)

    @property
    def equal(self) -> bool:
        return len(set(self.sds)) == 1


@dataclass(frozen=True)
class Rates:
    """What came of many benches of one kind; all are shares of benches but single_coverage, a share of intervals."""

    family_error: float
    power: float
    single_power: float
    single_coverage: float
    all_coverage: float


def scenarios(rows: int) -> Iterator[Scenario]:
    """The kinds of benches of so many rows; the noisy and the collapsed row are neither KD nor the student alone."""
    ones = (1.0,) * rows
    yield Scenario("all sds equal", ones)
    if rows > 2:
        for words, sd in (
            ("20 times the variance", 20**0.5),
            ("100 times the variance", 10.0),
            ("20 times the sd", 20.0),
            ("100 times the sd", 100.0),
        ):
            yield Scenario(f"one row at {words}", (*ones[:-1], sd))
        yield Scenario("one row collapsed", ones, collapsed=1)
    if rows > 8:
        yield Scenario("five rows collapsed", ones, collapsed=5)
    others = np.geomspace(LOW, HIGH, rows - 1)
    for kd in (1.0, HIGH):
        # of two rows, the other one's sd is as far from KD's as there is
        sds = others if rows > 2 else np.array([HIGH if kd == 1.0 else LOW])
        yield Scenario(f"sds from {LOW:g} to {HIGH:g}, KD at {kd:g}", (kd, *map(float, sds)))


def draw(
    scenario: Scenario, seeds: int, benches: int, effect: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True accuracies (rows), test and validation accuracies (benches, rows, seeds).

    Validation shows who collapsed. That a row is noisy shows on the test set alone: on validation it would often be
    taken for a collapsed one, and its errors would not be counted.
    """
    collapsed = np.arange(scenario.rows) >= scenario.rows - scenario.collapsed
    truth = BASE + SD * np.where(collapsed, COLLAPSE, np.where(np.arange(scenario.rows) == 1, -effect, 0.0))
    sds = SD * np.where(collapsed, COLLAPSED_SD, scenario.sds)
    common = SD * random.normal(size=(benches, 1, seeds))
    shape = (benches, scenario.rows, seeds)
    test = truth[:, None] + common + sds[:, None] * random.normal(size=shape)
    val = truth[:, None] + common + SD * np.where(collapsed, COLLAPSED_SD, 1.0)[:, None] * random.normal(size=shape)
    return truth, test, val


def differences(truth: np.ndarray, test: np.ndarray, val: np.ndarray) -> Iterator[tuple[Contrast, np.ndarray]]:
    """All comparisons with KD as a table makes them, benches with the same healthy rows at a time, and the true differences."""
    fallen = is_collapsed(val, val[:, 1:2], VAL_IMAGES)
    for pattern in np.unique(fallen, axis=0):
        kept = np.flatnonzero(~pattern)
        model = paired_model(test[np.all(fallen == pattern, axis=1)][:, kept])
        yield compared(model), truth[kept][1:] - truth[0]


def compared(model: ErrorModel) -> Contrast:
    """Every row but KD against KD, which comes first."""
    whole = model.against(0)
    return Contrast(whole.mean[..., 1:], whole.error[..., 1:], whole.freedom[..., 1:])


def rates(null: list[tuple[Contrast, np.ndarray]], shifted: list[tuple[Contrast, np.ndarray]]) -> Rates:
    """Error and coverage of benches where all rows are equal, power of benches where the student alone is worse."""
    errors, held, single, powers = [], [], [], []
    for contrast, truth in null:
        family = len(truth)
        errors.append((contrast.p(family) < 0.05).any(-1))
        low, high = contrast.interval(family)
        held.append(((low <= truth) & (truth <= high)).all(-1))
        low, high = contrast.interval()
        single.append(((low <= truth) & (truth <= high)).ravel())
    for contrast, truth in shifted:
        powers.append(np.stack([contrast.p(len(truth))[..., 0] < 0.05, contrast.p()[..., 0] < 0.05], -1))
    power, single_power = np.concatenate(powers).mean(0)
    return Rates(
        *(
            float(x)
            for x in (np.concatenate(errors).mean(), power, single_power, np.concatenate(single).mean(), np.concatenate(held).mean())
        )
    )


def simulate(scenario: Scenario, seeds: int, benches: int) -> Rates:
    random = np.random.default_rng([SEED, seeds, scenario.rows, *map(ord, scenario.name)])
    return rates(*(list(differences(*draw(scenario, seeds, benches, effect, random))) for effect in (0.0, EFFECT)))


def simulate_controls(seeds: int, controls: int, common: float, kd_sd: float, benches: int, rows: int = 11) -> Rates:
    """Benches in which KD and the student alone have `controls` seeds and the other rows the first `seeds` of them.

    common: the variance of what a seed does to all rows, in units of the variance of a row. As many seeds for all is
    the paired table, else nothing is paired. Here the row that KD is to be told from is the last: its seeds stay few.
    """
    random = np.random.default_rng([SEED, seeds, controls, int(1000 * common), int(1000 * kd_sd)])
    sds = np.array([kd_sd, *[1.0] * (rows - 1)])[:, None]
    found = []
    for effect in (0.0, SMALL_EFFECT):
        truth = np.array([0.0] * (rows - 1) + [effect])
        y = truth[:, None] + sds * random.normal(size=(benches, rows, controls)) + common**0.5 * random.normal(size=(benches, 1, controls))
        if controls == seeds:
            model = paired_model(y)
        else:
            parts = [y[:, row] if row < 2 else y[:, row, :seeds] for row in range(rows)]
            means, variances = (np.stack(x, -1) for x in zip(*((part.mean(-1), part.var(-1, ddof=1)) for part in parts), strict=True))
            model = independent_model(means, variances, np.array([part.shape[-1] for part in parts]))
        contrast = compared(model)
        last_first = [rows - 2, *range(rows - 2)]
        found.append(
            [
                (
                    Contrast(contrast.mean[:, last_first], contrast.error[:, last_first], contrast.freedom[:, last_first]),
                    truth[1:][last_first],
                )
            ]
        )
    return rates(*found)


def run(benches: int) -> dict[str, Any]:
    """Every line of both tables."""
    results = [
        {
            "n": seeds,
            "rows": rows,
            "scenario": scenario.name,
            "equal": scenario.equal,
            "collapsed": scenario.collapsed,
            **asdict(simulate(scenario, seeds, benches)),
        }
        for seeds in (3, 5)
        for rows in (2, 3, 11)
        for scenario in scenarios(rows)
    ]
    controls = [
        {"n": 5, "control_seeds": more, "common": common, "kd_sd": kd_sd, **asdict(simulate_controls(5, more, common, kd_sd, benches))}
        for kd_sd in (1.0, HIGH)
        for common in (0.0, 0.5, 1.0, 2.0)
        for more in (5, 10, 20)
    ]
    about = {"benches": benches, "seed": SEED, "sd": SD, "effect": EFFECT, "small_effect": SMALL_EFFECT}
    return {**about, "numpy": np.__version__, "scipy": scipy.__version__, "results": results, "control_seeds": controls}


def missed(content: dict[str, Any]) -> list[str]:
    """Which targets at n = 5 are not met by more than two Monte-Carlo errors, in words."""
    lines = [line for line in content["results"] if line["n"] == TARGET_SEEDS]
    healthy = {line["rows"]: line["power"] for line in lines if line["equal"] and not line["collapsed"]}
    said = []
    for line in lines:
        where, target = f"{line['rows']} rows, {line['scenario']}", TARGET if line["equal"] else TARGET_UNEQUAL
        if line["family_error"] > target + 2 * monte_carlo_error(target, content["benches"]):
            said.append(f"{where}: family error {line['family_error']:.3f}, asked for at most {target:g}")
        if line["collapsed"] and line["power"] < healthy[line["rows"]] - POWER_LOST - 2 * monte_carlo_error(0.5, content["benches"]):
            said.append(f"{where}: power {line['power']:.3f}, asked for within {POWER_LOST:g} of {healthy[line['rows']]:.3f}")
    return said


def monte_carlo_error(share: float, benches: int) -> float:
    return float((share * (1 - share) / benches) ** 0.5)


def markdown(content: dict[str, Any]) -> str:
    """Both tables and what they say of the targets."""
    error = monte_carlo_error(0.05, content["benches"])
    rates_of = ("family_error", "power", "single_power", "single_coverage", "all_coverage")
    lines = [
        "# How often the tables are wrong",
        "",
        f"{content['benches']:,} simulated benches a line by `python benchmarks/error_rates.py --write results/statistics`, judged by "
        f"the functions that make the tables. A share of 0.05 is known to ± {error:.4f} (one standard error). Rows: KD, the student "
        "alone and further methods; one sd is half a point. Family error: in how many benches some row that equals KD is told from it "
        f"by p times m. Power: how often a student alone {EFFECT:g} sd below KD is told from it, by p times m and by p. One interval "
        "holds: of single intervals; all hold: of tables, simultaneous intervals.",
        "",
        "| n | rows | | family error | power | power, single p | one interval holds | all hold |",
        "| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {line['n']} | {line['rows']} | {line['scenario']} | " + " | ".join(f"{line[rate]:.3f}" for rate in rates_of) + " |"
            for line in content["results"]
        ),
        "",
        f"Asked for at n = {TARGET_SEEDS}: a family error of at most {TARGET:g}, with unequal sds {TARGET_UNEQUAL:g}; power within "
        f"{POWER_LOST:g} of the healthy bench where rows collapse. Not reached (by more than two standard errors of the simulation): "
        + ("; ".join(missed(content)) or "nothing")
        + ".",
        "",
        "What the model does not cure:",
        "",
        *not_cured(content),
        "",
        "## More seeds for the controls",
        "",
        f"11 rows of five seeds; KD and the student alone have as many as the second column says (`--control-seeds`). More than the "
        "rest end the pairing by seed. Common: the variance of what a seed does to all rows alike, in variances of a row. Power: of a "
        f"method {SMALL_EFFECT:g} sd above KD.",
        "",
        "| KD's sd | control seeds | common | family error | power | power, single p | one interval holds | all hold |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {line['kd_sd']:g} | {line['control_seeds']} | {line['common']:g} | " + " | ".join(f"{line[r]:.3f}" for r in rates_of) + " |"
            for line in content["control_seeds"]
        ),
        "",
        pays(content),
    ]
    return "\n".join(lines) + "\n"


def not_cured(content: dict[str, Any]) -> list[str]:
    """The weaknesses that the first table shows, with its numbers."""
    lines = [line for line in content["results"] if line["rows"] == 11]
    noisy_kd = [line for line in lines if line["scenario"].endswith(f"KD at {HIGH:g}")]
    equal = {line["n"]: line["power"] for line in lines if line["equal"] and not line["collapsed"]}
    noisy = [line for line in lines if line["scenario"] == "one row at 20 times the sd"]
    low, high = (pick(line["single_coverage"] for line in noisy_kd) for pick in (min, max))
    few = max((line for line in lines if line["n"] == 3), key=lambda line: line["family_error"])
    return [
        f"- A control noisier than the rest (KD at {HIGH:g}, the others from {LOW:g}): its variance is drawn towards the others', and "
        f"single intervals hold in {low:.2f} to {high:.2f} instead of 0.95 of cases, with 11 rows. More control seeds do (below).",
        "- A row that is noisy and not collapsed enters each seed's mean, and so the errors of the others, which are then too wide: with "
        "one row at 20 times the sd the power falls "
        + " and ".join(f"from {equal[line['n']]:.2f} to {line['power']:.2f} (n = {line['n']})" for line in noisy)
        + ".",
        f"- Three seeds: with unequal sds the family error reaches {few['family_error']:.2f} ({few['scenario']}). Claims want five.",
        "- Two rows are the paired t-test, whose few degrees of freedom cost power at n = 3.",
    ]


def pays(content: dict[str, Any]) -> str:
    """When more control seeds pay, read off the second table."""
    lines = [line for line in content["control_seeds"] if line["kd_sd"] == 1.0]
    paired = {line["common"]: line["power"] for line in lines if line["control_seeds"] == 5}
    better = {more: [x["common"] for x in lines if x["control_seeds"] == more and x["power"] > paired[x["common"]]] for more in (10, 20)}
    noisy = [line for line in content["control_seeds"] if line["kd_sd"] == HIGH]
    cover = {m: [x["single_coverage"] for x in noisy if x["control_seeds"] == m] for m in (5, 10, 20)}
    return (
        "More control seeds pay in power where a seed does little to all rows alike: "
        + "; ".join(
            f"with {m} at a common variance of {', '.join(f'{c:g}' for c in found) or 'none of these'}" for m, found in better.items()
        )
        + ". On paper, n seeds of a row and n0 of the controls beat n paired ones where the common variance is below "
        "2 n0 / (n + n0) - 1 of a row's: 1/3 for twice as many, never 1 or more. They pay in honesty where a control is noisier than "
        f"the rest: with KD at {HIGH:g} single intervals hold in "
        + ", ".join(f"{min(c):.2f} to {max(c):.2f} ({m} control seeds)" for m, c in cover.items())
        + "."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benches", type=int, default=BENCHES, help="simulated benches a line")
    parser.add_argument("--write", type=Path, help="a folder for error_rates.json and error_rates.md")
    given = parser.parse_args()
    content = run(given.benches)
    print(markdown(content))
    if given.write is not None:
        given.write.mkdir(parents=True, exist_ok=True)
        (given.write / "error_rates.json").write_text(json.dumps(content, indent=1) + "\n")
        (given.write / "error_rates.md").write_text(markdown(content))


if __name__ == "__main__":
    main()
