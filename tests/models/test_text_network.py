"""A transformer of texts as a network: its outputs beside transformers' own, its name, layers copied to start, what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_texts import write_network, write_weights
from tokenizers import Tokenizer, normalizers
from transformers import AutoModelForSequenceClassification

from kdzoo.contract.needs import Need
from kdzoo.data.texts import as_rows
from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.network import freeze
from kdzoo.models.request import parse_network
from kdzoo.models.text import layers_to_copy, scored_classes
from kdzoo.models.text_names import is_text_network, text_architecture
from kdzoo.runs.spec import NetworkSpec

TEXTS = ["the cat", "some old bread and very new cheese", "a night"]
EVERYTHING = Need.LOGITS | Need.EMBEDDING | Need.STAGES


def rows(texts=TEXTS):
    return torch.from_numpy(as_rows([text.encode() for text in texts]).copy())[:, None]


def build(request, *, head="kept", seed=0, classes=3):
    start = "random" if request.path is None else f"file:{'0' * 64}"
    spec = NetworkSpec(name=request.name, classes=classes, start=start, image_size=request.image_size)
    return build_network(spec, channels=1, side=1, mean=(0.0,), std=(1.0,), seed=seed, head=head, weights=request.path)


@pytest.fixture
def folder(place):
    return write_network(place / "tiny")


def test_its_outputs_are_those_of_transformers_with_zeros_where_there_is_no_token(folder):
    network = freeze(build(parse_network(f"hf:{folder}@8")))
    given = network(rows(), EVERYTHING)
    tokens = network.normalise(rows())[:, :, :8]
    model = network.model
    with torch.no_grad():
        own = model(input_ids=tokens[:, 0], attention_mask=tokens[:, 1], output_hidden_states=True)
        pooled = model.bert(input_ids=tokens[:, 0], attention_mask=tokens[:, 1]).pooler_output
    torch.testing.assert_close(given.logits, own.logits)
    torch.testing.assert_close(given.embedding, pooled)
    lengths = tokens[:, 1].sum(1).tolist()
    assert lengths == [4, 8, 4]  # with [CLS] and [SEP]; the second is cut off
    assert len(given.stages) == 4
    for stage, states in zip(given.stages, own.hidden_states[1:], strict=True):
        assert stage.shape == (3, 16, 1, 8)
        for text, length in enumerate(lengths):
            torch.testing.assert_close(stage[text, :, 0, :length], states[text, :length].T)
            assert not stage[text, :, 0, length:].any()


def test_the_answer_for_a_text_is_the_same_bits_whatever_the_others_of_its_batch_are(folder):
    network = freeze(build(parse_network(f"hf:{folder}@8")))
    full = rows([TEXTS[1]] * 3)
    beside = torch.cat([rows()[1:2], rows()[[0, 2]]])
    assert torch.equal(network(full, Need.LOGITS).logits[0], network(beside, Need.LOGITS).logits[0])
    assert torch.equal(network(full, EVERYTHING).logits[0], network(beside, Need.LOGITS).logits[0])


def test_its_shapes_and_cost_say_that_its_maps_lie_over_tokens(folder):
    network = build(parse_network(f"hf:{folder}@8"))
    shapes = measure_shapes(network, (1, 1, 40))
    assert shapes.sequences
    assert (shapes.embedding, [(s.channels, s.height, s.width) for s in shapes.stages]) == (16, [(16, 1, 8)] * 4)
    assert torch.equal(shapes.classifier.weight, network.model.classifier.weight)
    cost = network_cost(network, (1, 1, 40))
    tokens, width = 9, 16
    in_layer = tokens * (4 * width**2 + 2 * width * 2 * width) + 2 * tokens**2 * width
    assert cost.macs == 4 * in_layer + width**2 + 3 * width
    assert cost.parameters == sum(p.numel() for p in network.model.parameters())


def test_its_tokeniser_is_told_by_how_it_splits_texts_and_not_by_the_lengths_in_its_file(folder, place):
    first = measure_shapes(build(parse_network(f"hf:{folder}@8")), (1, 1, 40)).tokeniser
    other = write_network(place / "other", kind="distilbert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    tokenizer.save(str(other / "tokenizer.json"))
    assert measure_shapes(build(parse_network(f"hf:{other}@8")), (1, 1, 40)).tokeniser == first
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(other / "tokenizer.json"))
    assert measure_shapes(build(parse_network(f"hf:{other}@8")), (1, 1, 40)).tokeniser not in (first, None)


def test_a_name_stands_for_a_configuration_and_tokeniser_and_is_found_again_by_any_process(folder, place):
    name = parse_network(f"hf:{folder}").name
    assert name == parse_network(name).name
    assert is_text_network(name)
    assert not is_text_network("resnet8")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_version": "9", "architectures": ["Other"]}, indent=4))
    assert parse_network(f"hf:{folder}").name == name
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    assert parse_network(f"hf:{folder}").name != name
    assert text_architecture(name).config()["intermediate_size"] == 32
    with pytest.raises(InputError, match="name their folder once: hf:FOLDER"):
        text_architecture(f"bert_4x16_{'0' * 12}")


@pytest.mark.parametrize(
    ("of", "to", "places"), [(12, 6, [0, 2, 4, 7, 9, 11]), (6, 3, [0, 2, 5]), (4, 2, [0, 3]), (3, 3, [0, 1, 2]), (5, 1, [0])]
)
def test_layers_are_copied_evenly_spaced_as_distilberts_were(of, to, places):
    assert layers_to_copy(of, to) == places


def test_a_student_of_fewer_layers_starts_from_its_teachers_and_a_backbone_gets_a_classifier(folder):
    teacher = build(parse_network(f"hf:{folder}"), seed=5)
    # as a backbone is saved: without `bert.` before its names, and without a classifier
    backbone = {name.removeprefix("bert."): value.clone() for name, value in teacher.model.state_dict().items() if name.startswith("bert.")}
    save_file(backbone, folder / "model.safetensors")
    student = build(parse_network(f"hf:{folder}@layers=2"), head="fresh", seed=1)
    assert student.fresh_head
    own, theirs = student.model.state_dict(), teacher.model.state_dict()
    for mine, place in ((0, 0), (1, 3)):
        for name, value in theirs.items():
            if name.startswith(f"bert.encoder.layer.{place}."):
                assert torch.equal(own[name.replace(f"layer.{place}.", f"layer.{mine}.")], value)
    assert torch.equal(own["bert.embeddings.word_embeddings.weight"], theirs["bert.embeddings.word_embeddings.weight"])
    assert not torch.equal(own["classifier.weight"], theirs["classifier.weight"])
    with pytest.raises(InputError, match=r"missing: classifier"):
        build(parse_network(f"hf:{folder}"))
    save_file({name: value.clone() for name, value in theirs.items()}, folder / "model.safetensors")
    assert torch.equal(build(parse_network(f"hf:{folder}")).model.classifier.weight, theirs["classifier.weight"])
    assert load_file(folder / "model.safetensors").keys() == theirs.keys()


KINDS = ("bert", "roberta", "distilbert")


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_of_any_kind_is_read_whole_and_scores_as_transformers_does(place, kind):
    folder = write_network(place / kind, kind=kind)
    model = write_weights(folder, "AutoModelForSequenceClassification", classes=5)
    state = load_file(folder / "model.safetensors")
    assert scored_classes(state) == scored_classes(dict(reversed(state.items()))) == 5
    for head in ("kept", "fresh"):
        network = freeze(build(parse_network(f"hf:{folder}@8"), head=head, classes=5))
        tokens, mask = network.normalise(rows()).unbind(1)
        assert not network.fresh_head
        with torch.no_grad():
            torch.testing.assert_close(network.logits(rows()), model(input_ids=tokens, attention_mask=mask).logits)
    student = build(parse_network(f"hf:{folder}@layers=2"), head="fresh", classes=5)
    own, theirs = student.model.state_dict(), model.state_dict()
    heads = [name for name in own if not name.startswith(f"{kind}.")]
    assert len(heads) == {"bert": 2, "roberta": 4, "distilbert": 4}[kind]
    assert all(torch.equal(own[name], theirs[name]) for name in heads)
    other = build(parse_network(f"hf:{folder}"), head="fresh", classes=3)
    assert other.fresh_head
    with pytest.raises(InputError, match="of another shape"):
        build(parse_network(f"hf:{folder}"), classes=3)


@pytest.mark.parametrize("head", ["AutoModel", "AutoModelForMaskedLM", "AutoModelForQuestionAnswering"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_of_a_backbone_or_of_pretraining_start_a_classifier(place, kind, head):
    """What transformers reads of the same files is what the network has, and the rest of it, a pooler too, starts at random."""
    folder = write_network(place / kind, kind=kind)
    write_weights(folder, head, classes=2)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    network = freeze(build(parse_network(f"hf:{folder}@8"), head="fresh"))
    assert network.fresh_head
    tokens, mask = network.normalise(rows(TEXTS[1:2])).unbind(1)
    with torch.no_grad():
        wanted = model(input_ids=tokens[:, :8], attention_mask=mask[:, :8], output_hidden_states=True).hidden_states[1:]
    given = network(rows(TEXTS[1:2]), EVERYTHING)
    for stage, states in zip(given.stages, wanted, strict=True):
        torch.testing.assert_close(stage[:, :, 0].transpose(1, 2), states)
    with pytest.raises(InputError, match=r"missing: .*classifier|missing: bert\.pooler"):
        build(parse_network(f"hf:{folder}"))


def test_weights_of_the_first_bert_are_read_with_their_pooler_and_by_their_old_names(folder):
    model = write_weights(folder, "BertForPreTraining")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value.clone()
        for name, value in model.state_dict().items()
    }
    assert any(name.endswith("gamma") for name in old)
    (folder / "model.safetensors").unlink()
    torch.save(old, folder / "pytorch_model.bin")
    own = build(parse_network(f"hf:{folder}"), head="fresh").model.state_dict()
    theirs = model.state_dict()
    shared = [name for name in own if name.startswith("bert.")]
    assert "bert.pooler.dense.weight" in shared
    assert all(torch.equal(own[name], theirs[name]) for name in shared)


def test_a_pooler_that_the_classifier_does_not_have_is_passed_over_and_weights_of_another_kind_are_refused(place):
    folder = write_network(place / "roberta", kind="roberta")
    model = write_weights(folder, "AutoModel")
    assert any(name.startswith("pooler.") for name in load_file(folder / "model.safetensors"))
    own = build(parse_network(f"hf:{folder}"), head="fresh").model.state_dict()
    assert all(torch.equal(own[f"roberta.{name}"], value) for name, value in model.state_dict().items() if not name.startswith("pooler."))
    other = write_network(place / "bert")
    (folder / "model.safetensors").replace(other / "model.safetensors")
    state = {f"roberta.{name}": value for name, value in load_file(other / "model.safetensors").items()}
    save_file(state, other / "model.safetensors")
    with pytest.raises(InputError, match="do not fit the network"):
        build(parse_network(f"hf:{other}"), head="fresh")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("hf:none", "no such folder: none"),
        ("hf:tiny@layers=9", "@layers=9: expected 1 to 4"),
        ("hf:empty", "no config.json and no tokenizer.json; expected a folder that save_pretrained has written"),
        ("resnet8@layers=2", "expected a network of texts"),
    ],
)
def test_what_names_no_network_of_texts_is_refused(folder, place, words, fault):
    (place / "empty").mkdir()
    with pytest.raises(InputError, match=fault):
        parse_network(words)


def test_more_tokens_than_it_has_positions_for_are_refused(folder):
    with pytest.raises(InputError, match="@48: expected at most 47 tokens"):
        build(parse_network(f"hf:{folder}@48"))


def test_there_is_no_dropout_so_that_a_step_is_repeated(folder):
    network = build(parse_network(f"hf:{folder}")).train()
    assert torch.equal(network.logits(rows()), network.logits(rows()))
