"""Every method's declared factors and hyper-parameters, each with the program or paper that they are from.

What another published program has instead is told on the method's page: that is checked here too.
"""

from typing import Any, NamedTuple

import pytest
from build_pages import method_page

from kdzoo.contract.card import Coefficients
from kdzoo.contract.methods import REGISTRY

REP, MD, AH = "RepDistiller (CRD's CIFAR-100 tables)", "mdistiller", "Knowledge-Distillation-Zoo"
SIMKD, LS, TTM, MMRAZOR = "SimKD's repository", "logit-standardization-KD", "TTM's repository", "mmrazor"
OWN, PAPER = "the authors' repository", "the paper"


class Published(NamedTuple):
    task: float
    term: float
    hyperparameters: dict[str, Any]
    source: str


PUBLISHED = {
    "ab": Published(1, 1, {"margin": 1.0}, REP),
    "abkd": Published(1, 32, {"teacher_power": 0.8, "student_power": 0.3, "temperature": 4.0}, f"{OWN}, its example"),
    "afd": Published(1, 500, {"width": 1.0}, AH),
    "at": Published(1, 1000, {"power": 2}, REP),
    "at_paper": Published(1, 1000, {"power": 2}, PAPER),
    "bss": Published(1, 2, {"temperature": 3.0, "share": 0.25, "steps": 10, "rate": 0.3, "until": 0.75}, OWN),
    "byot": Published(1, 1, {"soft_weight": 0.3, "hint_weight": 0.03, "temperature": 3.0}, MMRAZOR),
    "catkd": Published(1, 400, {"resolution": 2}, OWN),
    "cc": Published(1, 100, {"gamma": 0.4, "order": 2}, AH),
    "crd": Published(1, 0.8, {"tau": 0.07, "negatives": 16384, "width": 128, "momentum": 0.5}, REP),
    "crd_queue": Published(1, 0.8, {"tau": 0.07, "length": 16384, "width": 128}, f"{REP}, with memory banks"),
    "crld": Published(
        1,
        1,
        {
            "within_weight": 2.0,
            "cross_weight": 0.5,
            "within_threshold": 0.9,
            "cross_threshold": 0.2,
            "temperature": 4.0,
            "second_label_weight": 1.0,
        },
        OWN,
    ),
    "cskd": Published(1, 1, {"temperature": 4.0}, OWN),
    "ctkd": Published(0.1, 0.9, {"lowest": 1.0, "span": 20.0, "loops": 10}, OWN),
    "cwd": Published(1, 50, {"temperature": 4.0, "stage": None}, f"{PAPER}, for segmentation"),
    "deit_hard": Published(0.5, 0.5, {}, PAPER),
    "deit_soft": Published(0.9, 0.1, {"temperature": 3.0}, PAPER),
    "dist": Published(1, 2, {"temperature": 4.0, "inter_weight": 1.0, "intra_weight": 1.0}, f"{MMRAZOR}; T from {TTM}"),
    "distilbert": Published(2, 1, {"temperature": 2.0, "soft_weight": 5.0, "cosine_weight": 1.0}, f"{OWN}, its example for one device"),
    "dkd": Published(1, 1, {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 4.0, "warmup": 20}, MD),
    "dml": Published(1, 1, {"peers": 1}, PAPER),
    "ea_dkd": Published(
        1,
        1,
        {
            "target_weight": 1.0,
            "nontarget_weight": 8.0,
            "temperature": 4.0,
            "warmup": 20,
            "entropy_temperature": 3.0,
            "most_entropy": None,
        },
        OWN,
    ),
    "ea_hinton": Published(0.1, 0.9, {"temperature": 4.0, "entropy_temperature": 3.0, "most_entropy": None}, OWN),
    "embed": Published(1, 1, {"distance": "cosine", "layers": 2}, f"{PAPER}, which has no cross-entropy"),
    "ensemble_losses": Published(0.1, 0.9, {"temperature": 4.0}, f"hinton's, {REP}"),
    "ensemble_probabilities": Published(0.1, 0.9, {"temperature": 4.0}, f"hinton's, {REP}"),
    "fitnet": Published(1, 100, {"stage": None}, REP),
    "fitnet_two_stage": Published(1, 1, {"stage": None}, f"{PAPER}: the pretrain stage has no weight"),
    "fsp": Published(1, 1, {}, f"{PAPER}: the pretrain stage has no weight"),
    "ft": Published(1, 200, {"rate": 0.5}, f"{REP} and {AH}"),
    "ft_paraphraser": Published(1, 1, {"rate": 0.5}, f"{PAPER}: the pretrain stage has no weight"),
    "hinton": Published(0.1, 0.9, {"temperature": 4.0}, REP),
    "ickd": Published(1, 2.5, {}, OWN),
    "irg": Published(1, 1, {"vertex_weight": 0.1, "edge_weight": 5.0, "transform_weight": 5.0}, AH),
    "itrd": Published(1, 1, {"order": 1.5, "correlation_weight": 2.0, "information_weight": 1.0}, OWN),
    "kdcl": Published(1, 1, {"temperature": 2.0, "peers": 1}, f"{PAPER}; T is kdzoo's"),
    "logit_std": Published(0.1, 9, {"temperature": 2.0}, LS),
    "logit_std_dkd": Published(1, 9, {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 2.0, "warmup": 20}, LS),
    "logits": Published(1, 0.1, {}, AH),
    "lwm": Published(1, 0.4, {"stage": None}, AH),
    "mgd": Published(1, 7e-5, {"masked": 0.15, "mask": "channels"}, OWN),
    "mlld": Published(0.1, 0.9, {"temperature": 4.0, "second_label_weight": 1 / 9}, f"{MD}'s defaults, which the authors' code keeps"),
    "mlld_released": Published(0.1, 0.9, {"temperature": 4.0, "second_label_weight": 1 / 9}, f"{MD}'s defaults, as for mlld"),
    "nkd": Published(1, 1, {"nontarget_weight": 1.5, "temperature": 1.0}, f"{OWN}, for ImageNet"),
    "norm": Published(0, 1, {"segments": 4, "task": 0.5}, OWN),
    "nst": Published(1, 50, {}, REP),
    "ofa": Published(1, 1, {"enhancement": 1.5}, f"{OWN}, its example"),
    "ofd": Published(1, 1e-3, {}, OWN),
    "patientkd": Published(
        0.3,
        1,
        {"temperature": 5.0, "soft_weight": 0.7, "patience_weight": 500.0, "layers": "skip"},
        f"{OWN}, its example for RTE, T of its grid",
    ),
    "pefd": Published(1, 25, {"projectors": 3}, OWN),
    "pkd": Published(1, 6, {}, f"{PAPER}, for detection"),
    "pkt": Published(1, 30000 / 64, {}, f"{REP}, the mean over B x B at its batch of 64"),
    "proteus": Published(1, 1, {"token_weight": 1.0, "feature_weight": 1.0, "patch_weight": 1.0}, f"{OWN}, which has no cross-entropy"),
    "pseudo_classes": Published(
        1, 1, {"tau": 0.2, "teacher_tau": 0.01, "length": 16384, "layers": 2}, f"{PAPER}, which has no cross-entropy; its queue is longer"
    ),
    "pskd": Published(0, 1, {"last": 0.8}, OWN),
    "reviewkd": Published(1, 5, {"warmup": 20, "width": 512}, f"{OWN} and {MD}, resnet32x4 to resnet8x4"),
    "rkd": Published(1, 1, {"distance_weight": 25.0, "angle_weight": 50.0}, f"{REP}, {MD} and {AH}"),
    "rld": Published(
        1, 1, {"confidence_weight": 1.0, "correlation_weight": 8.0, "confidence_temperature": 1.0, "temperature": 4.0, "warmup": 20}, OWN
    ),
    "rsd": Published(1, 0.1, {"decorrelation_weight": 0.01, "expansion": 2}, OWN),
    "sdd": Published(
        1, 1, {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 4.0, "warmup": 20, "complementary_weight": 2.0}, OWN
    ),
    "semckd": Published(1, 400, {"width": 64, "middle": 1024}, SIMKD),
    "simkd": Published(0, 1, {"factor": 2}, SIMKD),
    "skd": Published(0.1, 0.9, {"temperature": 4.0, "ridge": 0.1}, OWN),
    "sobolev": Published(1, 20, {}, AH),
    "sp": Published(1, 3000, {}, f"{PAPER} and {REP}"),
    "srd": Published(1, 2, {"power": 4.0}, OWN),
    "srrl": Published(1, 1, {}, OWN),
    "tfkd": Published(0.9, 0.1, {"correct": 0.99, "temperature": 20.0}, OWN),
    "tokens": Published(1, 1, {"distance": "mixed", "layers": 2}, f"{PAPER}, which has no cross-entropy"),
    "ttm": Published(1, 45, {"power": 0.1}, TTM),
    "vid": Published(1, 1, {}, REP),
    "vkd": Published(1, 1, {}, OWN),
    "wkd_l": Published(
        1,
        1,
        {
            "transport_weight": 600.0,
            "temperature": 8.0,
            "regularisation": 0.05,
            "iterations": 10,
            "costs": "cka",
            "samples": 100,
            "sharpness": 1.0,
            "constant": 0.625,
        },
        OWN,
    ),
    "wsld": Published(1, 2.5, {"temperature": 2.0}, MMRAZOR),
    "wttm": Published(1, 4, {"power": 0.2}, TTM),
}

OTHERS = {
    "nkd": ("gamma = 3.5 and T = 3 for CIFAR-100",),
    "catkd": (
        "40 or 15 at 2 x 2 cells and 600 or 80 at 4 x 4",
        "0.7 (resnet56 to resnet20), 15 (resnet32x4 to resnet8x4), 1.5, 1.8, 4.5 and 12",
    ),
    "norm": ("4 segments by default, as here, and 8 in their script",),
    "itrd": ("order 1.01",),
    "ofa": ("1.5 is that of its example, DeiT-T to ResNet18, its default being 1.0",),
    "byot": ("belongs to a root of a sum, sqrt(S)", "2 sqrt(S) / B times"),
    "sdd": ("5 times as large with a 2 x 2 grid and 21 times with a 4 x 4 grid", "weigh NCKD by 2 or 6 for ten of their eighteen pairs"),
    "dkd": ("2 for resnet56 to resnet20 and resnet110 to resnet32",),
    "reviewkd": ("0.6 (resnet20), 1 (resnet32), 5 and 8 (resnet32x4 to ShuffleNetV2)",),
    "mgd": ("1.2e-3 for CIFAR-100",),
    "wsld": ("2.25 L at T = 4 for CIFAR-100",),
    "at": ("its 1000 is 333 here",),
    "deit_soft": ("K times weaker",),
    "tfkd": ("leaves the student at T = 1, and averages over the K classes too",),
    "hinton": ("0.1 CE + 9 KD at T = 2",),
    "ofd": ("1e-4 for ImageNet",),
    "pkt": ("10000 and 1e-6",),
    "wkd_l": ("200 at T = 6 for wrn_40_2 to ShuffleNetV1", "30 and 25 at T = 2"),
    "skd": ("its weight of 0.9 acts as 0.45",),
    "abkd": ("as 32 in the README and as 64 in the script",),
    "ea_hinton": ("CE + 0.5 L at T = 1 and T' = 2",),
    "nst": ("takes the last stage with 10",),
}
"""what other published programs have, or the factor between them and kdzoo, in the words of the method's page"""


@pytest.mark.release
def test_every_method_is_in_the_table():
    assert sorted(PUBLISHED) == REGISTRY.own_names()


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_declared_is_what_was_published(name):
    cls, published = REGISTRY.get(name), PUBLISHED[name]
    assert cls.card.published == Coefficients(published.task, published.term)
    assert cls().model_dump() == published.hyperparameters
    assert cls.card.source.weights


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, found in OTHERS.items() for words in found])
def test_the_page_tells_what_other_programs_have(name, words):
    assert words in method_page(name)
