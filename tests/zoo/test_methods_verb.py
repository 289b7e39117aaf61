"""`kdzoo methods` lists the zoo, and of it the families and needs that are asked for."""

import json

import pytest

from kdzoo.contract.card import FAMILIES
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Pass


@pytest.fixture
def listed(kdzoo):
    """The rows that the verb prints, by method."""

    def rows(*words: str) -> dict[str, dict]:
        said = kdzoo("methods", *words, "--format", "json")
        assert said.status == 0, said.err
        return {row["method"]: row for row in json.loads(said.out)}

    return rows


def test_all_methods_are_listed_with_family_and_reading(listed):
    rows = listed()
    assert list(rows) == REGISTRY.names()
    assert rows["at"] == {
        "method": "at",
        "family": "features",
        "task_weight": 1.0,
        "term_weight": 1000.0,
        "reads": ["stages"],
        "hyperparameters": {"power": 2},
        "title": "Paying More Attention to Attention",
        "year": 2017,
        "url": "https://arxiv.org/abs/1612.03928",
        "summary": "Where the teacher's stages are active, as normalised maps of channel means.",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_its_own_methods(listed, family):
    assert list(listed("--family", family)) == [name for name in REGISTRY.names() if REGISTRY.get(name).card.family == family]


def test_every_family_but_the_users_own_has_methods_that_sum_to_the_zoo(listed):
    by_family = [listed("--family", family) for family in FAMILIES]
    assert sum(map(len, by_family)) == len(REGISTRY.names())
    assert sorted(listed("--family", ",".join(FAMILIES))) == REGISTRY.names()


def test_two_families_are_both_listed(listed):
    assert {row["family"] for row in listed("--family", "logits, features").values()} == {"logits", "features"}


def test_needs_are_all_read_by_either_network(listed):
    both = listed("--needs", "logits,second_view")
    cards = {name: REGISTRY.get(name).card for name in REGISTRY.names()}
    assert list(both) == [
        name for name, card in cards.items() if {Need.LOGITS, Pass.SECOND_VIEW} <= set(card.needs.student | card.needs.teacher)
    ]
    assert "hinton" not in both
    assert "crld" in both


def test_a_need_of_the_teacher_alone_counts(listed):
    assert "simkd" in listed("--needs", "embedding")


def test_filters_meet(listed):
    assert {row["family"] for row in listed("--family", "logits", "--needs", "stages").values()} <= {"logits"}


def test_nothing_found_is_an_empty_list_with_its_columns(kdzoo):
    said = kdzoo("methods", "--family", "own", "--format", "csv")
    assert said.status == 0
    assert said.out.startswith("method,family,task_weight,term_weight,reads,")


def test_a_plugin_is_filtered_like_the_rest(listed, place):
    (place / "mine.py").write_text(
        "import kdzoo\n"
        "@kdzoo.register('verb_mine')\n"
        "def verb_mine(student, teacher, batch):\n"
        "    return (student.embedding.mean() - teacher.embedding.detach().mean()).square()\n"
    )
    assert "verb_mine" in listed("--family", "own", "--needs", "embedding", "--plugin", "mine.py")


def test_wrong_words_are_all_named_with_the_nearest(kdzoo):
    said = kdzoo("methods", "--family", "logit,graphs")
    assert said.status == 2
    assert "--family: unknown 'logit'; did you mean 'logits'?" in said.err
    assert "'graphs'" in said.err
    said = kdzoo("methods", "--needs", "stage")
    assert said.status == 2
    assert "--needs: unknown 'stage'; did you mean 'stages'?" in said.err
