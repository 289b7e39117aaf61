"""Outputs: what was asked for can be read, what was not is refused, and one table says what can be done with each."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from kdzoo.contract import needs
from kdzoo.contract.needs import KINDS, PASS_KINDS, Need, Needs, NetworkNeeds, Pass, UndeclaredNeed, describe
from kdzoo.contract.outputs import Outputs


def test_what_was_not_asked_for_is_told_from_what_is_not_there():
    outputs = Outputs(logits=torch.ones(2, 3), embedding=None, owner="student")
    assert outputs.embedding is None
    with pytest.raises(UndeclaredNeed, match=r"student\.stages is read, .*: write needs=Need\.LOGITS \| Need\.EMBEDDING \| Need\.STAGES"):
        _ = outputs.stages
    assert outputs.get(Need.STAGES) is None
    assert outputs.needs == NetworkNeeds(Need.LOGITS | Need.EMBEDDING)


def test_it_is_a_frozen_dataclass_whose_fields_are_the_needs_of_a_network():
    fields = [field.name for field in dataclasses.fields(Outputs)]
    assert fields == [
        "logits",
        "embedding",
        "stages",
        "classifier",
        "preact",
        "distilled",
        "members",
        "second",
        "partner",
        "network",
        "owner",
        "on_read",
    ]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Outputs(owner="student").logits = torch.ones(1)
    with pytest.raises(TypeError, match="softmax"):
        Outputs(softmax=torch.ones(1), owner="student")


def test_every_reading_of_a_field_is_noted_and_nothing_else_is():
    read = []
    outputs = Outputs(logits=torch.ones(2, 3), members=[torch.ones(2, 3)], owner="student", on_read=read.append)
    assert "logits (2, 3), members [(2, 3)]" in repr(outputs)
    assert [need for need, _ in outputs.map(torch.neg).items()] == [Need.LOGITS, Need.MEMBERS]
    assert read == []
    _ = outputs.logits
    assert read == [Need.LOGITS]


def test_passes_are_outputs_too_and_a_restriction_reaches_them():
    inner = Outputs(logits=torch.ones(2, 3), stages=[torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 1, 1)], owner="student")
    outputs = inner.with_pass(Pass.SECOND_VIEW, inner).with_pass(Pass.PARTNER, inner).restrict_to(Need.STAGES | Pass.SECOND_VIEW, [1])
    assert [float(stage.sum()) for stage in outputs.second.stages] == [0.0]
    with pytest.raises(UndeclaredNeed, match=r"logits is read"):
        _ = outputs.second.logits
    with pytest.raises(UndeclaredNeed, match=r"student\.partner is read, .*: write needs=Need\.STAGES \| Pass\.SECOND_VIEW \| Pass\.PA"):
        _ = outputs.partner
    assert copy.deepcopy(outputs).second.stages[0].shape == (2, 1, 1, 1)


def test_half_precision_becomes_float32_and_float64_stays():
    outputs = Outputs(
        logits=torch.ones(1, dtype=torch.bfloat16), embedding=torch.ones(1, dtype=torch.float64), owner="student"
    ).at_least_float32()
    assert (outputs.logits.dtype, outputs.embedding.dtype) == (torch.float32, torch.float64)


def test_the_tables_of_what_each_output_and_each_pass_can():
    L, E, S, P, D, M = Need.LOGITS, Need.EMBEDDING, Need.STAGES, Need.PREACT, Need.DISTILLED, Need.MEMBERS
    assert set(KINDS) == set(Need)
    assert list(needs.PER_SAMPLE) == [L, E, S, P, D, M]
    assert needs.ALWAYS_CACHED == L | E
    assert [need for need in Need if need and NetworkNeeds(need).batchable] == [L, E, S, P, Need.TARGETS]
    assert needs.COMPILABLE == ~(P | Need.NETWORK)
    assert needs.OWN_WIDTH == E | S | P | Need.CLASSIFIER
    assert list(PASS_KINDS) == list(Pass)
    assert [kind.stream for kind in PASS_KINDS.values()] == ["view", "second view", "partner view"]
    assert not NetworkNeeds(L, Pass.SECOND_VIEW).batchable
    everything = ~Need.NOTHING | Pass.SECOND_VIEW | Pass.PARTNER
    assert Needs.of(everything) == Needs(everything, ~(Need.TARGETS | D) | Pass.SECOND_VIEW)


def test_outputs_and_passes_are_declared_together():
    needs = Need.LOGITS | Pass.PARTNER | Need.STAGES | Pass.SECOND_VIEW
    assert needs == Pass.SECOND_VIEW | Pass.PARTNER | (Need.STAGES | Need.LOGITS)
    assert (needs.outputs, list(needs.passes)) == (Need.LOGITS | Need.STAGES, [Pass.FIRST, Pass.SECOND_VIEW, Pass.PARTNER])
    assert needs.words == ["logits", "stages", "second_view", "partner"]
    assert describe(needs) == "Need.LOGITS | Need.STAGES | Pass.SECOND_VIEW | Pass.PARTNER"
    assert (Pass.FIRST in NetworkNeeds(Need.NOTHING), bool(NetworkNeeds(Need.NOTHING)), bool(NetworkNeeds.of(Pass.PARTNER))) == (
        True,
        False,
        True,
    )


def test_a_module_is_handed_over_as_it_is():
    layer = nn.Linear(2, 3)
    assert Outputs(classifier=layer, owner="teacher").map(torch.neg).classifier is layer
