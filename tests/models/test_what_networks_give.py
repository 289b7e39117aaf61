"""What a network gives besides class scores: probabilities, wrapped scores, and what is none of these."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kdzoo.contract.needs import Need
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.examine import kind_of_scores
from kdzoo.models.measure import measure_shapes
from kdzoo.models.network import Network, freeze, log_of
from kdzoo.runs.spec import NetworkSpec, Normalisation

PIXELS = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Three sharp class scores of grey images, handed over by `give`."""

    def __init__(self, give=lambda scores, features: scores, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, classes)
        nn.init.normal_(self.head.weight, std=20.0)
        self.give = give

    def forward(self, x):
        features = self.body(x).mean((2, 3))
        return self.give(self.head(features), features)


def made(module: nn.Module, *, head="kept", **spec) -> Network:
    told = NetworkSpec(name="module:Net-0", classes=3, **spec)
    network = build_network(told, channels=1, side=8, mean=(0.4,), std=(0.3,), seed=0, head=head, module=module)
    return freeze(network) if head == "kept" else network


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("end", [lambda s, f: s.softmax(1), lambda s, f: s.log_softmax(1)], ids=["softmax", "log_softmax"])
def test_probabilities_teach_as_the_scores_would(end, temperature):
    scores, ended = made(Net()), made(Net(end))
    assert (scores.gives, ended.gives) in {("scores", "probabilities"), ("scores", "log-probabilities")}
    softened = [(network.logits(PIXELS) / temperature).softmax(1) for network in (scores, ended)]
    assert torch.allclose(*softened, atol=1e-6)


def test_all_else_that_a_network_of_probabilities_gives_is_as_it_was():
    scores, ended = (made(Net(give)) for give in (lambda s, f: s, lambda s, f: s.softmax(1)))
    need = Need.LOGITS | Need.EMBEDDING | Need.STAGES | Need.MEMBERS
    one, other = scores(PIXELS, need), ended(PIXELS, need)
    assert torch.equal(one.embedding, other.embedding)
    assert all(torch.equal(*pair) for pair in zip(one.stages, other.stages, strict=True))
    assert torch.equal(other.members[0], other.logits)
    assert measure_shapes(ended, (1, 8, 8)).classifier is not None


def test_the_logarithm_of_nothing_is_finite():
    assert log_of(torch.tensor([0.0, 1.0])).isfinite().all()


def test_scores_are_not_taken_for_probabilities():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 3, generator=generator)
    assert kind_of_scores(scores) == "scores"
    assert kind_of_scores(scores.sigmoid()) == "scores"
    assert kind_of_scores(scores.relu()) == "scores"
    assert kind_of_scores(scores.softmax(1)) == "probabilities"
    assert kind_of_scores(scores.log_softmax(1)) == "log-probabilities"


def test_a_network_that_is_trained_must_not_end_in_a_softmax():
    with pytest.raises(InputError, match=r"ends in a softmax.*remove the softmax"):
        made(Net(lambda s, f: s.softmax(1)), head="fresh")
    assert made(Net(lambda s, f: s.log_softmax(1)), head="fresh").gives == "log-probabilities"


@pytest.mark.parametrize(
    "give",
    [lambda s, f: (s, f), lambda s, f: [s], lambda s, f: {"logits": s, "features": f}, lambda s, f: SimpleNamespace(logits=s)],
    ids=["tuple", "list", "dict", "object"],
)
@pytest.mark.parametrize("head", ["kept", "fresh"])
def test_scores_that_cannot_be_mistaken_are_taken_out_of_their_wrapping(give, head):
    assert torch.equal(made(Net(give), head=head).eval().logits(PIXELS), made(Net()).logits(PIXELS))


REFUSED = {
    "a list of maps": (lambda s, f: [f[:, :, None, None]], r"a list of a tensor \(4, 4, 1, 1\)"),
    "features": (lambda s, f: f, "its output is 4 values per image; expected 3"),
    "features first": (lambda s, f: (f, s), "its output is 4 values per image; expected 3"),
    "one column": (lambda s, f: s[:, :1], "its output is one number per image; expected 3 class scores"),
    "a vector": (lambda s, f: s[:, 0], "its output is one number per image; expected 3 class scores"),
    "a map": (lambda s, f: s[:, :, None, None], r"values of shape \(3, 1, 1\)"),
    "two sets of scores": (lambda s, f: (s, s), "which are the class scores"),
    "a dict without logits": (lambda s, f: {"out": s}, "a dict with 'out'"),
    "classes": (lambda s, f: s.argmax(1), "a tensor of torch.int64"),
    "nothing": (lambda s, f: None, "returns a NoneType"),
    "an empty tuple": (lambda s, f: (), "a tuple of nothing"),
    "a fault of its own": (lambda s, f: s.no_such_thing, "AttributeError: .*no_such_thing"),
}


@pytest.mark.parametrize("head", ["kept", "fresh"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_score_for_each_class_is_refused_in_words_when_the_network_is_made(what, head):
    give, words = REFUSED[what]
    with pytest.raises(InputError, match=f"^Net: .*{words}"):
        made(Net(give), head=head)


@pytest.mark.parametrize("classes", [2, 12])
def test_a_network_of_other_classes_is_refused_with_both_numbers(classes):
    with pytest.raises(InputError, match=f"its output is {classes} values per image; expected 3, one score per class"):
        made(Net(classes=classes))


class InTraining(Net):
    """Scores in evaluation, something else while it is trained."""

    def forward(self, x):
        scores = super().forward(x)
        return [scores, scores] if self.training else scores


def test_what_a_student_gives_while_it_is_trained_counts_too():
    assert made(InTraining()).gives == "scores"
    with pytest.raises(InputError, match="which are the class scores"):
        made(InTraining(), head="fresh")


def test_making_a_network_changes_nothing_in_the_module_and_draws_nothing_at_random():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    network = made(module, head="fresh")
    assert torch.equal(torch.get_rng_state(), expected)
    assert all(
        torch.equal(value, before[name]) for state in (module.state_dict(), network.model.state_dict()) for name, value in state.items()
    )


def test_a_normalisation_that_is_named_is_the_one_that_is_used():
    told = made(Net(), norm=Normalisation(mean=(0.5,), std=(0.25,)))
    assert torch.allclose(told.normalise(PIXELS), (PIXELS / 255 - 0.5) / 0.25)
    assert not told.assumed_norm
    assert made(Net()).assumed_norm
    with pytest.raises(InputError, match=r"norm: expected one mean or 1 \(one per channel\), got 3"):
        made(Net(), norm=Normalisation(mean=(0.5, 0.5, 0.4), std=(0.2, 0.2, 0.2)))
