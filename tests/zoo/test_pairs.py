"""Every method on real networks: one training step works with nothing configured, or it is refused before, with the reason.

On two CNNs of one family every method is tried, on the other pairs a twelfth of the methods and pairs at each commit (see
turns.py). What comes out is the table docs/method-pairs.md, which `python docs/build_pages.py` writes.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from build_pages import TRIALS, Outcome, PairOnTrial, Ready, attempt, pairs_page, plain_reason, ready
from turns import part_of

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need

PAGE = Path(__file__).resolve().parents[2] / "docs" / "method-pairs.md"
FOUND: dict[tuple[str, PairOnTrial], Outcome] = {}
"""what each method came to on each pair, so that the table needs no second trial"""

NEEDS_A_DISTILLED_STUDENT = [name for name in REGISTRY.names_for_images() if Need.DISTILLED in REGISTRY.get(name).card.needs.student]
NEEDS_PREACTIVATIONS = [name for name in REGISTRY.names_for_images() if Need.PREACT in REGISTRY.get(name).card.needs.teacher]
UNASSUMING = [name for name in REGISTRY.names_for_images() if name not in NEEDS_A_DISTILLED_STUDENT]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TRIED = [(trial, name) for trial in TRIALS[1:] for name in REGISTRY.names_for_images()]
TRIED = [(TRIALS[0], name) for name in REGISTRY.names_for_images()] + part_of(TRIED, 12)
"""the pairs and methods of this commit"""


_ready = lru_cache(maxsize=1)(ready)  # the cases of a pair follow each other


@pytest.fixture
def pair(request) -> Ready:
    return _ready(request.param)


def outcome(name: str, pair: Ready) -> Outcome:
    if (name, pair.trial) not in FOUND:
        FOUND[name, pair.trial] = attempt(name, pair)
    return FOUND[name, pair.trial]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "name"), TRIED, indirect=["pair"], ids=[f"{trial.student} under {trial.teacher}-{name}" for trial, name in TRIED]
)
def test_a_method_works_on_a_pair_or_is_refused_with_the_reason(pair, name):
    """`attempt` raises where a loss or gradient is not finite, the student stands still, or the teacher is changed."""
    for problem in outcome(name, pair):
        assert problem.startswith(f"{name}: ")


@pytest.mark.slow
@pytest.mark.parametrize("pair", TRIALS[:1], indirect=True, ids=["CNNs of one family"])
@pytest.mark.parametrize("name", UNASSUMING)
def test_every_method_works_on_two_cnns_of_one_family(pair, name):
    assert outcome(name, pair) == ()


@pytest.mark.slow
@pytest.mark.release
def test_the_table_in_the_docs_is_what_came_out():
    """Cell by cell for what is tried at this commit; the whole page where everything is."""
    for trial in TRIALS:
        missing = [name for other, name in TRIED if other == trial and (name, trial) not in FOUND]
        built = _ready(trial) if missing else None
        for name in missing:
            outcome(name, built)
    text = PAGE.read_text()
    if len(TRIED) == len(TRIALS) * len(REGISTRY.names_for_images()):
        found = {(name, trial): FOUND[name, trial] for trial in TRIALS for name in REGISTRY.names_for_images()}
        assert text == pairs_page(found), "run python docs/build_pages.py"
    came_out = {key: {plain_reason(problem) for problem in problems} for key, problems in FOUND.items()}
    in_the_docs = {(name, TRIALS[place]): cell for name, cells in reasons_of(text).items() for place, cell in enumerate(cells)}
    assert {key: in_the_docs[key] for key in came_out} == came_out, "run python docs/build_pages.py"


def reasons_of(text: str) -> dict[str, list[set[str]]]:
    """What the page's cells say of a method on each pair: the reasons of a refusal."""
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", text, re.M))
    rows = re.findall(r"^\| \[(\w+)\]\(methods/\w+\.md\) \| (.*) \|$", text, re.M)
    return {name: [{reasons[number] for number in re.findall(r"\d+", cell)} for cell in cells.split(" | ")] for name, cells in rows}


@pytest.mark.release
def test_the_table_in_the_docs_holds_every_method_and_every_pair():
    text = PAGE.read_text()
    missing = [name for name in REGISTRY.names_for_images() if f"| [{name}](methods/{name}.md) |" not in text]
    assert missing == [], "run python docs/build_pages.py"
    assert all(f"| {trial.words} | {trial.teacher} | {trial.student} |" in text for trial in TRIALS)


@pytest.mark.parametrize("name", NEEDS_A_DISTILLED_STUDENT)
def test_methods_of_distillation_tokens_say_which_networks_have_one(name):
    (problem,) = attempt(name, _ready(PairOnTrial("small", "resnet8", "resnet8")))
    assert "timm's distilled models" in problem


@pytest.mark.parametrize("name", NEEDS_PREACTIVATIONS)
def test_methods_of_preactivations_say_which_networks_give_them(name):
    problems = attempt(name, _ready(PairOnTrial("small", "resnet8", "mobilenetv3_small_050")))
    assert any("kdzoo's own networks and timm's ResNets and RegNets" in problem for problem in problems)
