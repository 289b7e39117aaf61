"""What a bench comes to, in one sentence with its uncertainty, from the same statistics as its table."""

from __future__ import annotations

from collections.abc import Sequence

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import Block, Standing, labels, position_of
from kdzoo.suite.report.comparisons import comparisons
from kdzoo.suite.report.rivals import Rival, rival_of, rivals_of
from kdzoo.text import number_of

ENOUGH_POINTS = 1.0
"""KD is called enough for a pair where no method can be better than it by more than this number of points"""
AT_MOST_NAMED = 4


def verdicts(bench: BenchRecords) -> list[str]:
    """A sentence for every table of a bench, with what tells the table apart where there are several."""
    blocks = bench.blocks
    if not blocks:
        return ["Verdict: none, there are no runs."]
    if len(blocks) == 1:
        return [f"Verdict: {verdict(blocks[0])}"]
    return [f"Verdict for {label}: {verdict(block)}" for label, block in zip(labels(blocks), blocks, strict=True)]


def verdict(block: Block) -> str:
    """What one table says of methods against KD: which is better, whether KD is enough, or why neither can be said."""
    sentence = _no_verdict(block) or _compared(block)
    missing = sum(record.state not in ("done", "failed", "paused") for record in block.records)
    if missing:
        done = sum(record.state == "done" for record in block.records)
        sentence = f"so far, with {done} of {number_of(len(block.records), 'run')}: {sentence}"
    return sentence + _left_out(block) + _fewer_settings(block) + "."


def _no_verdict(block: Block) -> str:
    """Why a table says nothing of KD; empty where it does."""
    methods = [standing.record.method for standing in block.standings]
    kd = block.only(KD)
    if not any(standing.done for standing in block.standings):
        failed = sum(record.state == "failed" for record in block.records)
        return "none, no run is done" + (f": {failed} of {number_of(len(block.records), 'run')} failed" if failed else "")
    if block.has_one_seed:
        return "none, with one seed no difference can be told from chance (three seeds give intervals; claims need five)"
    if KD not in methods:
        return f"none about KD, which is not in this table{_against_alone(block)}"
    if methods.count(KD) > 1:
        return "none, nothing was held out to choose a setting by, and KD has several"
    if kd is None:
        return f"none about KD, which is not done{_against_alone(block)}"
    if kd.collapsed is not None:
        return f"none about KD, which itself collapsed ({kd.collapsed}){_against_alone(block)}"
    if len(kd.done) < 2:
        return "none, KD has one seed"
    return ""


def _compared(block: Block) -> str:
    """The methods beside the two controls against KD; KD against the student alone where there are none."""
    kd = block.only(KD)
    assert kd is not None
    rivals = rivals_of(block, KD)
    if not rivals:
        return f"{_gain_of_kd(block, kd)}no method beside the two controls can be compared with {_name(kd)}"
    better = [rival for rival in rivals if rival.low > 0]
    if better:
        words = f"{block.metric.difference_words} ({_level(rivals, block)})"
        if len(better) == 1:
            return f"{better[0].name} is better than {_name(kd)} on this pair by {better[0].gain} {words}"
        return f"{_first(better)} {words}{further_text(better)} are better than {_name(kd)} on this pair"
    most = max(rivals, key=lambda rival: rival.high)
    if most.high <= 0:
        worse_by = f"{most.shortfall} {block.metric.difference_words} ({_level(rivals, block)})"
        if len(rivals) == 1:
            return f"{_name(kd)} is enough for this pair as far as one other method shows: {most.name} is worse by {worse_by}"
        others = f"{_all(len(rivals))} other methods are worse, the best of them, {most.name},"
        return f"{_name(kd)} is enough for this pair: {others} by {worse_by}"
    bound = f"{block.metric.text(most.high)} {block.metric.difference_words} ({_level(rivals, block)})"
    worse = sum(rival.high < 0 for rival in rivals)
    also = f"; {worse} {'is' if worse == 1 else 'are'} worse" if worse else ""
    if block.metric.unit == "share" and 100 * most.high <= ENOUGH_POINTS:
        if len(rivals) == 1:
            alone = f"{_name(kd)} is enough for this pair as far as one other method shows"
            return f"{alone}: {most.name} is not better than it by more than {bound}{also}"
        which = f"none of the {len(rivals)} other methods is"
        return f"{_name(kd)} is enough for this pair: {which} better than it by more than {bound}{also}"
    which = "the other method" if len(rivals) == 1 else f"any of the {len(rivals)} other methods"
    open_ = f"but {most.name} may be better by up to {bound}"
    return f"it is not shown that {which} is better than {_name(kd)} on this pair, {open_}{also}; more seeds would narrow this range"


def _first(rivals: Sequence[Rival]) -> str:
    return ", ".join(map(str, rivals[:AT_MOST_NAMED]))


def further_text(rivals: Sequence[Rival]) -> str:
    """` and 2 more`: how many rivals there are beyond those that `_first` names; empty for none."""
    more = len(rivals) - AT_MOST_NAMED
    return f" and {more} more" if more > 0 else ""


def _level(rivals: Sequence[Rival], block: Block) -> str:
    """How sure that is: the family is the table's, the student alone included."""
    family = comparisons(block, KD).family
    seeds = sorted({len(standing.done) for standing in block.compared})
    words = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"95 % for {_all(family)} comparisons at once, {words} seeds" if family > 1 else f"95 %, {words} seeds"


def _all(count: int) -> str:
    return "both" if count == 2 else f"all {count}"


def _name(kd: Standing) -> str:
    """`tuned KD` where several settings were tried, else KD with the setting that it was given."""
    return "tuned KD" if kd.tried > 1 else f"KD ({kd.setting})" if kd.setting else "KD"


def _gain_of_kd(block: Block, kd: Standing) -> str:
    """KD against the student alone, by itself; empty where there is no such test."""
    tests = comparisons(block, NONE)
    if tests.contrast is None or position_of(tests.standings, kd) is None:
        return ""
    gain = rival_of(tests, kd, family=1)
    amount = f"{str(gain).removeprefix(f'{gain.name} by ')} {block.metric.difference_words}"
    sure = f"(95 %, {len(kd.done)} seeds)"
    if gain.low > 0 or gain.high < 0:
        return f"{_name(kd)} is {'better' if gain.low > 0 else 'worse'} than the student alone by {amount} {sure}; "
    return f"{_name(kd)} cannot be told apart from the student alone, {amount} {sure}; "


def _against_alone(block: Block) -> str:
    """What can be said without KD: which methods are better than the student alone."""
    rivals = rivals_of(block, NONE)
    better = [rival for rival in rivals if rival.low > 0]
    if not rivals:
        return ""
    if not better:
        return "; no method is shown to be better than the student alone"
    family = comparisons(block, NONE).family
    return f"; better than the student alone: {_first(better)}{further_text(better)} (95 % for {_all(family)} comparisons at once)"


def _left_out(block: Block) -> str:
    """Which methods are in no comparison: those that collapsed (KD apart, of which the sentence speaks itself) or have one seed.

    Nothing where there is no comparison at all, because no run is done.
    """
    if not any(standing.done for standing in block.standings):
        return ""
    methods = [standing for standing in block.standings if standing.record.method not in (KD, NONE)]
    collapsed = [standing for standing in methods if standing.collapsed is not None]
    single = [s for s in methods if s.collapsed is None and len(s.done) == 1 and not block.has_one_seed]
    texts = {"collapsed and in no comparison": collapsed, "of one seed and in no comparison": single}
    return "".join(f"; {text}: {_names(standings)}" for text, standings in texts.items() if standings)


def _fewer_settings(block: Block) -> str:
    """That KD was chosen among fewer settings than were planned, since runs of the others failed; empty where it was not."""
    states: dict[str, set[str]] = {}
    for record in block.records:
        if record.method == KD:
            states.setdefault(record.setting_key, set()).add(record.state)
    failed = [key for key, found in states.items() if "failed" in found and "done" not in found]
    if not failed or block.only(KD) is None:
        return ""
    left = len(states) - len(failed)
    return f"; KD was chosen among {left} of its {number_of(len(states), 'setting')}, because the runs of the others failed"


def _names(standings: Sequence[Standing]) -> str:
    names = sorted({f"'{standing.record.method}'" for standing in standings})
    more = len(names) - AT_MOST_NAMED
    return ", ".join(names[:AT_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
