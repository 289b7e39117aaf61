"""`kdzoo teachers join` and `kdzoo teachers save-by-names`: files of teachers that are no single network with class scores."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import argument, option
from kdzoo.cli.loading import load_plugin_files
from kdzoo.cli.options import DataRoot, Plugins
from kdzoo.cli.output import print_text
from kdzoo.tasks.features import SCALED_ON

Data = Annotated[str, option("--data", text="A data set's name, or folder:PATH.", metavar="NAME", names_of=complete.data)]
ImageSize = Annotated[
    int | None, option(text="The side that a folder's images are decoded to.", default="that of the data", metavar="SIDE")
]


def join(
    networks: Annotated[
        list[str],
        argument(
            "Two or more networks: NAME:pretrained@SIZE, NAME:FILE@norm=0.5, or a name for its published weights.", metavar="NETWORKS"
        ),
    ],
    data: Data,
    output: Annotated[Path, option("--output", "-o", text="The file to write, .safetensors.", metavar="FILE")],
    images: Annotated[
        int, option(text="How many training images the scales are measured on.", default=f"{SCALED_ON:,}", metavar="N")
    ] = SCALED_ON,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    plugin: Plugins = None,
) -> int:
    """Join several teachers without classes into one, for `kdzoo bench --task features --teacher FILE`.

    Each embedding is rotated and scaled to variance 1 in every channel (PHI-S) and set beside the others, each teacher with the same
    weight in a squared distance. The file holds the weights of all.

    \b
    Example:
      kdzoo teachers join resnet50 mobilenetv3_small_100 --data cifar100 -o joined.safetensors
    """
    from kdzoo.models.agglomerate import Agglomerate
    from kdzoo.training.joining import join_teachers

    load_plugin_files(plugin)
    root = Path(data_root) if data_root else None
    network = join_teachers(networks, data, output, images=images, root=root, image_size=image_size)
    assert isinstance(network.model, Agglomerate)
    widths = " + ".join(map(str, network.model.widths))
    print_text(
        f"{output}: {len(networks)} teachers, embeddings of width {widths} = {sum(network.model.widths)}, "
        f"scales measured on training images of {data}"
    )
    words = ["--task", "features", "--teacher", str(output), "--student", "NAME", "--data", data, "--methods", "embed"]
    print_text(f"use it: {shlex.join(['kdzoo', 'bench', *words, '--grid', 'embed.distance=squared'])}")
    return 0


def save_by_names(
    network: Annotated[str, argument("The network of images: NAME:pretrained@SIZE, or NAME:FILE@norm=clip.", metavar="NETWORK")],
    names: Annotated[Path, argument("An npz file with `names` (K,) and their `embeddings` (K, D).", metavar="FILE")],
    data: Data,
    output: Annotated[Path, option("--output", "-o", text="The file to write, .npz or .safetensors.", metavar="FILE")],
    unlabelled: Annotated[
        str | None, option(text="Further images without labels, as --transfer-data takes them.", default="none", metavar="folder:PATH")
    ] = None,
    scale: Annotated[float, option(text="What the cosines are multiplied by.", default="100, as CLIP has it", metavar="FACTOR")] = 100.0,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    plugin: Plugins = None,
) -> int:
    """Save class scores of a teacher that knows classes by their names alone, such as CLIP, for `kdzoo bench --teacher saved:FILE`.

    A class score is `--scale` times the cosine of the image's embedding and that of the class's name.

    \b
    Example:
      kdzoo teachers save-by-names resnet50 names.npz --data cifar100 -o by-names.npz
    """
    from kdzoo.training.named_scores import save_named_scores

    load_plugin_files(plugin)
    root = Path(data_root) if data_root else None
    file = save_named_scores(network, names, data, output, unlabelled=unlabelled, scale=scale, root=root, image_size=image_size)
    print_text(f"{output}: {len(file.keys):,} images in their centre view, {file.classes} class scores each, and the embedding")
    print_text(f"use it: {shlex.join(['kdzoo', 'bench', '--teacher', f'saved:{output}', '--student', 'NAME', '--data', data])}")
    return 0
