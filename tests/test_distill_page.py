"""The page of a distillation: its numbers are those of independent functions, and names from a folder stay text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_matrix
from test_shortway import verdict_of

from kdzoo.data.dataset import Subset
from kdzoo.runs.recipe import Augment
from kdzoo.suite.distill.page import MOST_IMAGES, HeldOut, build_page, confusion_matrix, confusions, disagreements, divergences, thumbnail

CLASSES = ("ape", "<script>alert(1)</script>", "cat & dog")
AUGMENT = Augment()


def part(count: int, seed: int) -> HeldOut:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 12, 12), generator=random, dtype=torch.uint8)
    scores = [torch.randn(count, len(CLASSES), generator=random).log_softmax(1) for _ in range(2)]
    return HeldOut(Subset(images, torch.randint(0, len(CLASSES), (count,), generator=random)), *scores)


@pytest.fixture
def parts() -> list[HeldOut]:
    return [part(20, 1), part(30, 2)]


def test_the_confusion_matrix_is_that_of_scikit_learn_over_all_parts(parts):
    truth = torch.cat([one.subset.targets for one in parts]).numpy()
    named = torch.cat([one.student.argmax(1) for one in parts]).numpy()
    matrix = confusion_matrix(parts, len(CLASSES))
    np.testing.assert_array_equal(matrix, sklearn_matrix(truth, named, labels=range(len(CLASSES))))
    found = confusions(matrix, CLASSES)
    counts = [one.count for one in found]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == (truth != named).sum()
    assert all(one.of == (truth == CLASSES.index(one.truth)).sum() for one in found)


def test_the_divergence_is_torchs_kl_of_the_teacher_from_the_student(parts):
    (one, _) = parts
    expected = torch.nn.functional.kl_div(one.student, one.teacher, log_target=True, reduction="none").sum(1)
    torch.testing.assert_close(divergences(one.teacher, one.student), expected)
    sure = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    assert divergences(sure, torch.tensor([[0.5, 0.25, 0.25]]).log()).item() == pytest.approx(np.log(2))


def test_the_images_of_largest_divergence_come_first_with_what_both_networks_say(parts):
    shown = disagreements(parts, CLASSES, AUGMENT)
    assert len(shown) == MOST_IMAGES
    everything = torch.cat([divergences(one.teacher, one.student) for one in parts]).sort(descending=True).values[:MOST_IMAGES]
    assert [one.divergence for one in shown] == pytest.approx(everything.tolist())
    most = max(
        ((one, at) for one in parts for at in range(len(one.subset.targets))), key=lambda p: divergences(p[0].teacher, p[0].student)[p[1]]
    )
    first = shown[0]
    assert first.truth == CLASSES[most[0].subset.targets[most[1]]]
    assert first.student == CLASSES[most[0].student[most[1]].argmax()]
    assert first.teacher_share == pytest.approx(most[0].teacher[most[1]].exp().max().item())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_is_shown_pixel_by_pixel(channels):
    images = torch.randint(0, 256, (2, channels, 9, 7), dtype=torch.uint8)
    source = thumbnail(Subset(images, torch.zeros(2, dtype=torch.int64)), 1, AUGMENT)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
    np.testing.assert_array_equal(shown.reshape(9, 7, channels), images[1].permute(1, 2, 0).numpy())


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_the_page_has_no_script_and_no_address_and_a_classs_name_stays_text(parts):
    verdict = verdict_of(classes=CLASSES, images=50)
    page = build_page(verdict, parts, AUGMENT, "The teacher is under Apache-2.0.")
    read = Tags()
    read.feed(page)
    assert "script" not in read.tags
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert CLASSES[1] in read.text
    assert read.tags.count("img") == MOST_IMAGES
    assert "taught by" in read.text
    assert "trained alone</h1>" in build_page(
        verdict_of(classes=CLASSES, difference_low=-0.3, difference_high=-0.1, p=0.01), parts, AUGMENT, ""
    )


def test_many_classes_have_their_confusions_and_no_matrix(parts):
    many = (*CLASSES, *(f"class {number}" for number in range(40)))
    wide = [
        HeldOut(one.subset, *(torch.nn.functional.pad(p, (0, 40), value=-torch.inf) for p in (one.student, one.teacher))) for one in parts
    ]
    page = build_page(verdict_of(classes=many, images=50), wide, AUGMENT, "")
    assert 'class="confusion"' not in page
    assert re.search(r"\d+ of \d+ images of <strong>ape</strong> named", page)
