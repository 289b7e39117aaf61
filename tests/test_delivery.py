"""What `kdzoo distill` delivers: the code of the README, run as it stands, says what kdzoo says."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from warm_python import WarmPopen

from kdzoo.data.files import content_digest
from kdzoo.data.folder import load_folder
from kdzoo.data.listing import list_images
from kdzoo.data.preprocess import centre
from kdzoo.models.build import build_network
from kdzoo.models.network import Network
from kdzoo.models.predict import predict
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.runs.spec import NetworkSpec
from kdzoo.suite.distill.delivery import deliver

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch_size=8, lr=0.1, augment=Augment(crop="resized", size=32, flip=True))
ROTATED = 6
"""the EXIF orientation of a photograph taken with the camera held upright"""


@pytest.fixture(scope="module")
def odd_photos(tmp_path_factory) -> Path:
    """Images of three classes as cameras, scanners and old programs leave them: rotated by EXIF, grey, of 16 bits, with a palette or
    transparent, and of odd sizes."""
    folder, random = tmp_path_factory.mktemp("odd") / "photos", np.random.default_rng(0)
    for label in range(3):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(20):
            height, width = (int(side) for side in random.integers(20, 90, 2))
            coarse = random.integers(0, 256, (5, 4, 3)).astype(np.uint8)
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            file = folder / f"class{label}" / f"{number}"
            match number % 6:
                case 0:
                    exif = Image.Exif()
                    exif[0x0112] = ROTATED
                    image.save(file.with_suffix(".jpg"), exif=exif)
                case 1:
                    deep = np.asarray(image.convert("L")).astype(np.uint16) * 15  # 12 of 16 bits, as scanners have them
                    Image.fromarray(deep).save(file.with_suffix(".png"))
                case 2:
                    image.convert("L").save(file.with_suffix(".png"))
                case 3:
                    image.convert("P").save(file.with_suffix(".gif"))
                case 4:
                    image.putalpha(Image.fromarray(random.integers(0, 256, (height, width)).astype(np.uint8)))
                    image.save(file.with_suffix(".png"))
                case 5:
                    image.save(file.with_suffix(".webp"), lossless=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "popen"),
    [
        (NetworkSpec(name="wrn_16_1", classes=3), subprocess.Popen),
        (NetworkSpec(name="test_resnet", classes=3, stem="small"), WarmPopen),
        (NetworkSpec(name="test_vit", classes=3, image_size=48), WarmPopen),
        (NetworkSpec(name="mlp_20_10", classes=3), WarmPopen),
    ],
    ids=["kdzoo's own", "small stem", "ViT of another side", "of any widths"],
)
def test_the_code_of_the_readme_predicts_what_kdzoo_predicts(odd_photos, tmp_path, spec, popen):
    images = load_folder(odd_photos, RECIPE.augment.size)
    assert images.scales["16-bit"] == 2**12
    network = build_network(spec, channels=3, side=32, mean=images.mean, std=images.std, seed=1)
    with torch.no_grad():  # an untrained network names one class alone, until the mean of its scores is taken off
        network.classifier.bias -= network.eval().logits(centre(images.train.images, 32)).mean(0)
    own = {
        bytes(key.tolist()): images.classes[label]
        for subset in (images.train, images.test)
        for key, label in zip(subset.keys, predict(network, subset, RECIPE.augment, CPU).argmax(1).tolist(), strict=True)
    }
    deliver(tmp_path, network, spec, images, RECIPE, verdict="measured", metadata={})

    paths = [path for path, _ in list_images(odd_photos).parts["train"]]
    (tmp_path / "image.jpg").write_bytes(Path(paths[0]).read_bytes())
    code = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    script = f"{code}\nfor path in {paths!r}:\n    print(classify(path))\n"
    with popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        first, *spoken = process.communicate()[0].split()
    expected = [own[digest_of(path)] for path in paths]
    assert Counter(expected).most_common(2)[1][1] >= 5, "the comparison needs a network that tells images apart"
    assert spoken == expected
    assert naive(network, paths, images.classes) != expected, "the comparison needs images on which preprocessing matters"
    assert first == spoken[0]


def naive(network: Network, paths: list[str], classes: tuple[str, ...]) -> list[str]:
    """What the network says of the same files as most programs read them."""
    squares = [np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (32, 32))) for path in paths]
    images = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    return [classes[label] for label in network.logits(images).argmax(1).tolist()]


def digest_of(path: str) -> bytes:
    return content_digest(Path(path).parent.name, Path(path).read_bytes())


def test_the_delivered_code_is_that_of_training_and_needs_no_kdzoo(odd_photos, tmp_path):
    from kdzoo.data import pixels, preprocess, views
    from kdzoo.models import network as networks

    assert pixels.square is preprocess.square
    assert views.centre is preprocess.centre
    assert networks.normalise is preprocess.normalise
    source = Path(preprocess.__file__).read_text()
    assert "import kdzoo" not in source
    assert "from kdzoo" not in source


def test_timm_is_enough_for_a_network_of_timms(odd_photos, tmp_path):
    images = load_folder(odd_photos, 32)
    spec = NetworkSpec(name="test_resnet", classes=3)
    network = build_network(spec, channels=3, side=32, mean=images.mean, std=images.std, seed=1)
    deliver(tmp_path, network, spec, images, RECIPE, verdict="measured", metadata={})
    text = (tmp_path / "README.md").read_text()
    assert "kdzoo" not in text.split("```python\n")[1].split("```")[0]
    assert timm.create_model("test_resnet", num_classes=3).load_state_dict(_weights(tmp_path))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "student.safetensors")
