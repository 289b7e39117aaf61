"""A network of Hugging Face's transformers that classifies texts gives what methods read; only this file imports transformers."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.data.texts import as_rows, as_texts
from kdzoo.errors import InputError
from kdzoo.models import generic
from kdzoo.models.capture import CaptureInputs
from kdzoo.models.examine import quietly, refuse_shape
from kdzoo.models.network import Network
from kdzoo.models.text_names import TOKENIZER, TextArchitecture
from kdzoo.models.weights import load_state
from kdzoo.runs.spec import NetworkSpec
from kdzoo.seeds import global_stream

USUAL_LENGTH = 64
"""tokens of a text that a network reads, unless its words say another number (`@128`)"""
LAYER = re.compile(r"(.*\blayers?\.)(\d+)(\..*)")
"""a weight of one of the layers"""
CLASSIFIER = re.compile(r"(classifier|score|pre_classifier|classification_head)\.")
SCORES = re.compile(r"(classifier|score|(classifier|classification_head)\.out_proj)\.weight")
"""the weight of the classifier's layer that gives the scores; those before it are as wide as the network"""
OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))
"""what weights of 2018, such as bert-base-uncased's, are called, and what they are called now"""
POOLER = "pooler."
TRIAL_TEXTS = ("one text", "and another one, which is longer")


class TextNetwork(Network):
    """A transformer that takes texts as their bytes, (B, 1, 1, W) uint8, splits them into tokens itself, and gives Outputs.

    The stages are the hidden states of its layers as maps (B, D, 1, L) over the positions of `length` tokens, shallow to deep, and
    zero where a text has no token. The embedding is what the classifier is given.
    """

    def __init__(self, model: nn.Module, architecture: TextArchitecture, length: int) -> None:
        super().__init__(model, channels=1, mean=(0.0,), std=(1.0,), image_size=length)
        from tokenizers import Tokenizer

        self.architecture = architecture.name
        self.length = length
        self.tokenizer = Tokenizer.from_file(str(architecture.folder / TOKENIZER))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._tokeniser_digest = hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()  # whatever lengths its file names
        self.tokenizer.enable_truncation(length)
        padding = int(getattr(model.config, "pad_token_id", None) or 0)
        # one place more than a text can fill: with a mask that nowhere is all ones, torch computes attention in one way, so that
        # the answer for a text does not depend on the others of its batch
        self.tokenizer.enable_padding(length=length + 1, pad_id=padding)

    def extra_repr(self) -> str:
        return f"{self.architecture}, length {self.length}, transformers {version('transformers')}"

    def normalise(self, images: Tensor) -> Tensor:
        """The tokens of texts and where they are, (B, 2, L + 1) int64."""
        texts = as_texts(images.to("cpu", torch.uint8).flatten(1).numpy())
        encoded = self.tokenizer.encode_batch(texts)
        rows = [[one.ids, one.attention_mask] for one in encoded]
        return torch.tensor(rows, dtype=torch.int64, device=images.device)

    def outputs_of(self, x: Tensor, need: Need) -> Outputs:
        tokens, mask = x.unbind(1)
        with ExitStack() as hooks:
            classifier_inputs = CaptureInputs(hooks, [self.classifier] if Need.EMBEDDING in need else [])
            answer = self.model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
        values: dict[Need, Any] = {
            Need.LOGITS: answer.logits,
            Need.EMBEDDING: classifier_inputs.values[0] if classifier_inputs.values else None,
            Need.STAGES: [_map(states, mask) for states in answer.hidden_states[1:]] if Need.STAGES in need else None,
            Need.MEMBERS: [answer.logits],
        }
        return Outputs.of({n: value for n, value in values.items() if n in need} | self.parts(need), owner="network")

    @property
    def gives_sequences(self) -> bool:
        return True

    @property
    def tokeniser(self) -> str | None:
        return self._tokeniser_digest

    @property
    def gives_preactivations(self) -> bool:
        return False


def _map(states: Tensor, mask: Tensor) -> Tensor:
    """Hidden states (B, L + 1, D) as a map (B, D, 1, L), zero where there is no token."""
    return (states * mask[:, :, None].to(states.dtype))[:, :-1].transpose(1, 2).unsqueeze(2)


def build_text_network(
    spec: NetworkSpec,
    architecture: TextArchitecture,
    *,
    length: int | None,
    seed: int,
    fresh_head: bool,
    state: Mapping[str, Tensor] | None,
    where: str,
) -> TextNetwork:
    """The network of a specification, with the weights of `state`, of which it may have fewer layers.

    length: in tokens; None for the usual. fresh_head: whether a classifier that the weights lack, or that is for other classes, starts
    at random. Raises InputError for weights that do not fit.
    """
    with global_stream(seed, "init"):
        model = create_model(architecture, spec.classes)
    network = TextNetwork(model, architecture, length or min(USUAL_LENGTH, _positions(model)))
    if network.length > _positions(model):
        raise InputError(f"{spec.name}: @{network.length}: expected at most {_positions(model)} tokens")
    if state is not None:
        network.fresh_head = fresh_head and scored_classes(state) != spec.classes
        load_state(model, _fitted(state, model, architecture.layers, network.fresh_head), where)
    tokens = network.normalise(_trial_rows())
    network.layout = quietly(network, partial(_layout, network, tokens))
    refuse_shape(quietly(network, lambda: network.outputs_of(tokens, Need.LOGITS).logits), spec.classes, spec.name)
    return network


def create_model(architecture: TextArchitecture, classes: int) -> nn.Module:
    """A classifier of texts with random weights, and without dropout, of which recipes say nothing for it."""
    try:
        with _without_notices():
            return _create_model(architecture, classes)
    except ImportError as error:
        raise InputError(f"network {architecture.name}: needs transformers: pip install transformers ({error})") from error


def _create_model(architecture: TextArchitecture, classes: int) -> nn.Module:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    values = architecture.config()
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    for key, value in vars(config).items():
        if "dropout" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    config.num_labels = classes
    model: nn.Module = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
    return model


@contextmanager
def _without_notices() -> Iterator[None]:
    """A block in which torch does not tell of names that packages which transformers imports have registered twice."""
    logger = logging.getLogger("torch.utils._pytree")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def register_text_network(architecture: TextArchitecture) -> None:
    """Make the network known to timm, in whose lists all networks are."""
    from timm.models import register_model

    def entrypoint(pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise InputError(f"{architecture.name}: timm has no weights for it; name a folder that has them, hf:FOLDER")
        return create_model(architecture, int(options.get("num_classes", 2)))

    entrypoint.__name__ = entrypoint.__qualname__ = architecture.name
    entrypoint.__module__ = __name__
    register_model(entrypoint)


def scored_classes(state: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights of a network of texts score; None for those of one without a classifier."""
    return next((int(value.shape[0]) for name, value in state.items() if SCORES.fullmatch(name)), None)


def layers_to_copy(of: int, to: int) -> list[int]:
    """Which of a network's layers one of fewer starts from, evenly spaced, the first and the last among them.

    Of 12 layers 6 are 0, 2, 4, 7, 9 and 11, as DistilBERT was started.
    """
    return [0] if to == 1 else [round(number * (of - 1) / (to - 1)) for number in range(to)]


def _fitted(state: Mapping[str, Tensor], model: nn.Module, layers: int, fresh_head: bool) -> dict[str, Tensor]:
    """Weights under the model's own names: of as many layers as it has, with its own classifier where theirs is not used.

    Heads of other tasks, such as the masked words of pretraining, are passed over, and a pooler that the model does not have. With a
    random classifier a pooler is random too where the weights have none.
    """
    backbone = f"{model.base_model_prefix}."
    own = model.state_dict()
    fitted = _of_layers(_named_as_in(own, backbone, state), layers)
    if fresh_head:
        fitted = {name: value for name, value in fitted.items() if not CLASSIFIER.match(name)}
        at_random = [name for name in own if not name.startswith(backbone) or name.startswith(backbone + POOLER)]
        fitted = {name: own[name] for name in at_random} | fitted
    return fitted


def _named_as_in(own: Mapping[str, Tensor], backbone: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under a model's names, `own`, of which those of all but its heads begin with `backbone`."""
    for old, new in OLD_NAMES:
        state = {name.replace(old, new): value for name, value in state.items()}
    if not any(name.startswith(backbone) for name in state):  # a network without heads was saved, whose names lack the word
        state = {name if name in own or CLASSIFIER.match(name) else backbone + name: value for name, value in state.items()}
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        of_backbone = name.startswith(backbone) and not name.startswith(backbone + POOLER)
        if name in own or CLASSIFIER.match(name) or (of_backbone and not name.endswith("position_ids")):  # which were a buffer once
            named[name] = value
    return named


def _of_layers(state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights of so many of the layers, evenly spaced; all of them where there are no more."""
    depth = 1 + max((int(match[2]) for name in state if (match := LAYER.fullmatch(name))), default=-1)
    places = {old: new for new, old in enumerate(layers_to_copy(depth, layers))} if depth >= layers else {}
    chosen: dict[str, Tensor] = {}
    for name, value in state.items():
        match = LAYER.fullmatch(name)
        if match is None or depth == layers:
            chosen[name] = value
        elif int(match[2]) in places:
            chosen[f"{match[1]}{places[int(match[2])]}{match[3]}"] = value
    return chosen


def _layout(network: TextNetwork, tokens: Tensor) -> generic.Layout:
    """The classifier: the last linear layer to run."""
    return generic.Layout(head=generic.find_layout(network.model, lambda: network.outputs_of(tokens, Need.LOGITS)).head)


def _positions(model: nn.Module) -> int:
    """How many tokens a text may have, but for the place that is always empty; of RoBERTa's kind two positions more are never used."""
    config = model.config
    most = int(getattr(config, "max_position_embeddings", 512))
    return most - 1 - (2 if "roberta" in str(getattr(config, "model_type", "")) else 0)


def _trial_rows() -> Tensor:
    return torch.from_numpy(as_rows([text.encode() for text in TRIAL_TEXTS]).copy())[:, None]
