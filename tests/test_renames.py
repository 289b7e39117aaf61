"""A plugin written before the public names were final runs after the renames of CHANGELOG's table, which is applied here by script."""

import re
from pathlib import Path

import pytest

from kdzoo.conformance.checks import Verdict, check
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.plugins import load_plugin
from kdzoo.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
BEFORE = ROOT / "tests" / "before"
"""`lsh` and `hint` as docs/add-a-method.md had them, and a plugin with every name that was renamed"""


def table() -> dict[str, str]:
    section = (ROOT / "CHANGELOG.md").read_text().split("### Renames: what a plugin names\n")[1].split("\n### ")[0]
    return dict(re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", section, re.M))


def renamed(text: str) -> str:
    for old, new in table().items():
        text = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)" if old[-1].isalnum() else rf"(?<!\w){re.escape(old)}", new, text)
    return text


@pytest.mark.parametrize("name", ["lsh", "hint", "peer_hint"])
def test_a_plugin_of_before_passes_every_check_after_the_renames(tmp_path, name):
    file = tmp_path / f"{name}.py"
    file.write_text(renamed((BEFORE / f"{name}.py").read_text()))
    load_plugin(file)
    failed = [finding for finding in check(REGISTRY.get(name)) if finding.verdict not in (Verdict.ok, Verdict.not_applicable)]
    assert failed == []


def test_every_row_of_the_table_is_met_in_the_plugins_or_read_off_the_card():
    texts = "".join(file.read_text() for file in BEFORE.glob("*.py"))
    assert {old for old in table() if old not in texts} == {"card.first"}
    assert REGISTRY.get("fitnet_two_stage").card.pretrain.followed_by == ("hinton",)


def test_without_the_renames_it_is_refused_by_what_it_imports(tmp_path):
    file = tmp_path / "peer_hint.py"
    file.write_text((BEFORE / "peer_hint.py").read_text())
    with pytest.raises(InputError, match=r"kdzoo\.method"):
        load_plugin(file)
