"""What `kdzoo distill` leaves in a folder: weights, classes, the code that reads images, and a README that uses them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kdzoo.data import preprocess
from kdzoo.data.dataset import Dataset
from kdzoo.models.build import creation_options
from kdzoo.models.names import is_own
from kdzoo.models.network import Network
from kdzoo.models.weights import save_student
from kdzoo.models.zoo.mlp import widths_of
from kdzoo.runs.atomic import write_bytes, write_json
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import NetworkSpec

WEIGHTS = "student.safetensors"
README = """# A small network

`{name}` for {count} classes, distilled with kdzoo. It needs {needs}.

```python
{code}
```

{verdict}
"""


def deliver(
    folder: Path,
    network: Network,
    spec: NetworkSpec,
    dataset: Dataset,
    recipe: Recipe,
    *,
    verdict: str,
    metadata: Mapping[str, str],
) -> None:
    """Write a trained network's weights, classes.json, preprocess.py and README.md into a folder; raises StoreError where that fails.

    verdict: what the README says of the network in Markdown. metadata: of the weights.
    """
    save_student(network, folder / WEIGHTS, metadata)
    write_json(folder / "classes.json", {str(i): name for i, name in enumerate(dataset.classes)})
    write_bytes(folder / "preprocess.py", Path(inspect.getfile(preprocess)).read_bytes())
    write_bytes(folder / "README.md", usage(network, spec, dataset, recipe, verdict).encode())


def usage(network: Network, spec: NetworkSpec, dataset: Dataset, recipe: Recipe, verdict: str) -> str:
    """How the network is loaded and fed, and the verdict."""
    helpers = ["import kdzoo.models.names  # makes its networks known to timm"] if is_own(spec.name) else []
    helpers += [f"kdzoo.models.names.is_known({json.dumps(spec.name)})"] if widths_of(spec.name) else []
    helpers += ["from kdzoo.models.zoo.stem import small_stem"] if spec.stem == "small" else []
    code = "\n".join(
        [
            *("import json", "", "import timm", "import torch", "from safetensors.torch import load_file", *helpers, ""),
            *("from preprocess import read_image  # the file beside this one: the code that read the images in training", ""),
            *(f"model = {_creation(network, spec, dataset, recipe)}", *_changes(spec)),
            *(f"model.load_state_dict(load_file({WEIGHTS!r}))", "model.eval()"),
            *('with open("classes.json", encoding="utf-8") as file:', "    classes = json.load(file)", "", ""),
            *("def classify(path):", "    image = read_image(", "        path,"),
            *(f"        {name}={value!r}," for name, value in reading(network, dataset, recipe).items()),
            *("    )", "    with torch.no_grad():", "        return classes[str(int(model(image).argmax()))]", "", ""),
            'print(classify("image.jpg"))',
        ]
    )
    needs = ["kdzoo", "timm"] if helpers else ["timm"]
    return README.format(
        name=spec.name,
        count=len(dataset.classes),
        needs=_listed([*needs, "torch", "safetensors", "numpy", "Pillow"]),
        code=code,
        verdict=verdict,
    )


def reading(network: Network, dataset: Dataset, recipe: Recipe) -> dict[str, object]:
    """How image files become the network's input: the arguments of `preprocess.read_image`."""
    return {
        "decode_side": dataset.height,
        "crop_side": recipe.augment.size,
        "network_side": network.image_size,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "scales": dict(dataset.scales),
    }


def _creation(network: Network, spec: NetworkSpec, dataset: Dataset, recipe: Recipe) -> str:
    side = network.image_size or recipe.augment.size or dataset.height
    made = spec.model_copy(update={"start": "random"})
    options = creation_options(made, network.channels, side)
    if options["in_chans"] == 3 and not is_own(spec.name):  # the usual number of timm's networks; some of kdzoo's take grey images
        del options["in_chans"]
    return f"timm.create_model({json.dumps(spec.name)}, {', '.join(f'{key}={value!r}' for key, value in options.items())})"


def _changes(spec: NetworkSpec) -> list[str]:
    return [f"small_stem(model, {json.dumps(spec.name)})"] if spec.stem == "small" else []


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
