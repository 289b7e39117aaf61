"""A tiny network of texts in Hugging Face's form and a file of labelled texts that it can learn, for tests."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = {
    "animal": ["cat", "dog", "horse", "sheep", "bird", "fish", "cow", "goat"],
    "food": ["bread", "cheese", "apple", "soup", "rice", "salt", "meat", "cake"],
    "time": ["hour", "day", "year", "minute", "week", "month", "century", "night"],
}
COMMON = ["the", "a", "of", "small", "large", "old", "new", "some", "and", "very"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def write_network(folder: Path, layers: int = 4, width: int = 16, kind: str = "bert") -> Path:
    """config.json and tokenizer.json of a small BERT, RoBERTa or DistilBERT, as save_pretrained writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    words = [*SPECIAL, *COMMON, *(word for kind in KINDS.values() for word in kind)]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    common = {"model_type": kind, "vocab_size": len(words), "max_position_embeddings": 48, "pad_token_id": 0}
    if kind == "distilbert":
        config = {"dim": width, "n_layers": layers, "n_heads": 2, "hidden_dim": 2 * width, "dropout": 0.1}
    else:
        config = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 2 * width}
        config["hidden_dropout_prob"] = 0.1
    config = common | config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_texts(file: Path, count: int = 240) -> Path:
    """Texts of common words and one word of a kind, labelled with the kind."""
    draw = random.Random(0)
    with file.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(["text", "label"])
        for number in range(count):
            kind = list(KINDS)[number % len(KINDS)]
            words = [*draw.choices(COMMON, k=draw.randint(2, 8)), draw.choice(KINDS[kind])]
            draw.shuffle(words)
            rows.writerow([" ".join(words), kind])
    return file


def write_weights(folder: Path, head: str, classes: int = 3) -> PreTrainedModel:
    """A network with random weights of the configuration in a folder, saved there whole: `head` is its class, such as AutoModel."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=classes)
    model = getattr(transformers, head)
    model = model.from_config(config) if head.startswith("Auto") else model(config)
    model.save_pretrained(folder)
    return model.eval()
