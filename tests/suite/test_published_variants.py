"""The variants of published programs that their studies train, against their formulas written in NumPy, and a step of each."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdzoo.contract.method import REGISTRY
from kdzoo.contract.plugins import load_plugin
from kdzoo.suite.plan.config import bench_config, recipe_file
from kdzoo.suite.run.bench import prepare, run
from kdzoo.suite.study.hours import count_runs
from kdzoo.suite.study.study import FOLDER, read_study, study_file

GOLDEN = Path(__file__).resolve().parent.parent
REP = ("cc_rep", "ft_rep", "fitnet_rep")
STAGES = ((3, 8, 8), (4, 4, 4), (6, 2, 2))
BATCH = 5


@pytest.fixture(scope="module")
def aber():
    load_plugin(FOLDER / "aber200.py")
    return SimpleNamespace(**REGISTRY.get("at_aber").loss.__globals__)


def maps(seed, positive=False):
    """Maps of three stages in double precision."""
    generator = np.random.default_rng(seed)
    found = [generator.normal(size=(BATCH, *shape)) for shape in STAGES]
    return [np.abs(features) if positive else features for features in found]


def tensors(*lists):
    return [[torch.from_numpy(features) for features in features_of] for features_of in lists]


def unit(rows, eps=0.0):
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + eps)


def test_maps_are_compared_as_the_zoos_formulas_say(aber):
    s, t = maps(0, positive=True), maps(1, positive=True)
    student, teacher = tensors(s, t)
    attention = [[unit((f**2).sum(1).reshape(BATCH, -1), 1e-6) for f in features] for features in (s, t)]
    assert float(aber.at_aber(student, teacher)) == pytest.approx(
        np.mean([((a - b) ** 2).mean() for a, b in zip(*attention, strict=True)]), rel=1e-6
    )
    assert float(aber.fitnet_aber(student, teacher)) == pytest.approx(((s[-1] - t[-1]) ** 2).mean())

    def kernel(a, b):
        a, b = (unit(f.reshape(-1, 4)).reshape(BATCH, 6, 4) for f in (a, b))
        return (np.einsum("bcp,bdp->bcd", a, b) ** 2).mean()

    expected = kernel(t[-1], t[-1]) + kernel(s[-1], s[-1]) - 2 * kernel(s[-1], t[-1])
    assert float(aber.nst_aber(student, teacher)) == pytest.approx(expected)

    def similar(f):
        rows = f.reshape(BATCH, -1)
        return unit(rows @ rows.T)

    expected = np.mean([((similar(a) - similar(b)) ** 2).sum() / BATCH**2 for a, b in zip(s, t, strict=True)])
    assert float(aber.sp_aber(student, teacher)) == pytest.approx(expected)

    def flow(a, b):
        ratio = a.shape[2] // b.shape[2]
        pooled = a.reshape(BATCH, a.shape[1], b.shape[2], ratio, b.shape[3], ratio).mean((3, 5))
        return np.einsum("bchw,bdhw->bcd", pooled, b) / (b.shape[2] * b.shape[3])

    expected = np.mean([((flow(a, b) - flow(c, d)) ** 2).mean() for a, b, c, d in zip(s[:-1], s[1:], t[:-1], t[1:], strict=True)])
    assert float(aber.fsp_aber(student, teacher)) == pytest.approx(expected)
    expected = np.abs(unit(s[-1].reshape(BATCH, -1)) - unit(t[-1].reshape(BATCH, -1))).mean()
    assert float(aber.ft_aber(student[-1], teacher[-1])) == pytest.approx(expected)


def test_signed_maps_are_compared_as_the_zoos_formulas_say(aber):
    s, t = maps(2), maps(3)
    student, teacher = tensors(s, t)

    def boundary(a, b, m=2.0):
        return np.where(b <= 0, np.where(a > -m, (a + m) ** 2, 0), np.where(a <= m, (a - m) ** 2, 0)).mean()

    assert float(aber.ab_aber(student, teacher)) == pytest.approx(np.mean([boundary(a, b) for a, b in zip(s, t, strict=True)]))

    def overhaul(a, b):
        margin = np.array([b[:, c][b[:, c] < 0].mean() for c in range(b.shape[1])])[None, :, None, None]
        target = np.maximum(b, margin)
        return np.where((a <= target) & (target <= 0), 0, (a - target) ** 2).mean()

    assert float(aber.ofd_aber(student, teacher)) == pytest.approx(np.mean([overhaul(a, b) for a, b in zip(s, t, strict=True)]), rel=1e-5)
    v = [np.linspace(0.5, 2, shape[0]) for shape in STAGES]
    expected = np.mean([((a - b) ** 2 / w[:, None, None] + np.log(w)[:, None, None]).mean() / 2 for a, b, w in zip(s, t, v, strict=True)])
    assert float(aber.vid_aber(student, teacher, [torch.from_numpy(one) for one in v])) == pytest.approx(expected)

    def cam(gradients):
        return unit(np.maximum((gradients.mean((2, 3), keepdims=True) * gradients).sum(1), 0).reshape(BATCH, -1))

    assert float(aber.lwm_aber(student[1], teacher[1])) == pytest.approx(np.abs(cam(s[1]) - cam(t[1])).mean())


def test_embeddings_are_compared_as_the_zoos_formula_says(aber):
    generator = np.random.default_rng(4)
    s, t = generator.normal(size=(2, BATCH, 7))

    def shares(rows):
        kernel = (unit(rows, 1e-6) @ unit(rows, 1e-6).T + 1) / 2
        return kernel / kernel.sum(1, keepdims=True)

    p, q = shares(t), shares(s)
    expected = (p * np.log((p + 1e-6) / (q + 1e-6))).mean()
    assert float(aber.pkt_aber(torch.from_numpy(s), torch.from_numpy(t))) == pytest.approx(expected)


def test_two_variants_are_the_zoos_own_values(aber):
    """The factor distance of FT, and LwM from its maps on, whose programs were run; the other nine have no such values."""
    golden = {case["id"]: case for case in json.loads((GOLDEN / "golden" / "public.json").read_text())}
    arrays = np.load(GOLDEN / "golden" / "public.npz")
    s, t = (torch.from_numpy(arrays[f"019_ft/{name}_stages/0"]) for name in ("student", "teacher"))
    assert float(aber.ft_aber(s, t)) == pytest.approx(golden["019_ft"]["expected_loss"], rel=1e-6)
    cases = {case["id"]: case for case in json.loads((GOLDEN / "golden2" / "published.json").read_text())}
    maps_of = np.load(GOLDEN / "golden2" / "published.npz")
    s, t = (torch.from_numpy(maps_of[f"143_lwm/{name}_cams"]) for name in ("student", "teacher"))
    assert float(aber.distance_of_maps(s, t)) == pytest.approx(cases["143_lwm"]["expected_loss"], rel=1e-6)


WEIGHTS = {
    "at": 1000, "fitnet": 0.1, "nst": 10, "pkt": 10000, "fsp": 1, "ft": 200, "ab": 10, "sp": 3000, "lwm": 0.4, "vid": 1, "ofd": 0.5,
    "logits": 0.1, "rkd": 1, "sobolev": 20, "bss": 2, "cc": 100, "irg": 1, "afd": 500,
}  # fmt: skip
"""the zoo's factors, beside cross-entropy with factor 1"""


def test_every_method_of_the_zoos_table_has_its_weight(aber):
    study = read_study(study_file("aber200"))
    instead = study.published[0].instead
    assert len(instead) == 11
    for method, weight in WEIGHTS.items():
        published = REGISTRY.get(instead.get(method, method)).card.published
        assert (method, published.task, published.term) == (method, 1.0, weight)
    for stage, crd in (("cifar10", "1*ce+0.2*crd"), ("cifar100", "1*ce+0.8*crd")):
        bench = study.stage(stage).bench
        assert {"1*ce+0.1*hinton", crd} <= set(bench["methods"])
        assert bench["grid"]["crd.tau"] == [0.1]
        assert bench["grid"]["ft_aber.norm"] == [stage == "cifar10"]


def test_the_zoos_table_is_complete_but_for_mutual_learning_of_two_architectures():
    """20 methods on three pairs and two data sets, the student alone beside each, and both networks of two pairs of equal ones."""
    measures = read_study(study_file("aber200")).measured()
    assert len(measures) == 20 * 3 * 2 + 3 * 2 + 2 * 2 * 2
    alone, kd, others, dml = 2, 2 * 3, 20 * 3, 3  # in each stage; plain KD at its published weights stands beside the zoo's as a control
    study = read_study(study_file("aber200"))
    assert [count_runs(study, stage) for stage in study.stages] == [alone + kd / 2 + others + dml] * 2
    assert {one.of.metric for one in measures} == {"oracle.test.top1"}
    named = {(one.of.stage, one.name): (one.of.method, one.paper) for one in measures}
    assert named["cifar100", "resnet110/resnet20: SP"] == ("sp_aber", 69.45)
    assert named["cifar10", "resnet110/resnet110: AB"] == ("ab_aber", 94.63)


@pytest.fixture(scope="module")
def rep():
    load_plugin(FOLDER / "crd240.py")
    return SimpleNamespace(**REGISTRY.get("cc_rep").loss.__globals__)


def test_crds_variants_are_as_the_formulas_of_its_program_say(rep):
    generator = np.random.default_rng(5)
    s, t = generator.normal(size=(2, BATCH, 7))
    expected = np.mean([(np.abs(s[i] - t[i]) * np.abs(s[i + 1] - t[i + 1])).sum() for i in range(BATCH - 1)])
    assert float(rep.cc_rep(torch.from_numpy(s), torch.from_numpy(t))) == pytest.approx(expected)
    s, t = maps(6)[1], maps(7)[1]
    one, other = (unit((factor**2).mean(1).reshape(BATCH, -1)) for factor in (s, t))
    assert float(rep.ft_rep(torch.from_numpy(s), torch.from_numpy(t))) == pytest.approx(np.abs(one - other).mean())


@pytest.mark.parametrize(("ours", "theirs"), [(8, 8), (16, 8), (8, 16), (8, 5)])
def test_a_hint_of_another_side_is_reached_by_a_convolution_of_that_ratio(rep, ours, theirs):
    module = rep.hint_regressor((3, 4), (ours, theirs))
    assert module(torch.zeros(2, 3, ours, ours)).shape == (2, 4, theirs, theirs)


def test_crds_table_has_its_weights_rates_and_pairs():
    study = read_study(study_file("crd240"))
    config, (table,) = study.config(study.stages[0]), study.published
    weights = {
        "hinton": (0.1, 0.9), "fitnet_rep": (1, 100), "at": (1, 1000), "sp": (1, 3000), "cc_rep": (1, 0.02), "vid": (1, 1), "rkd": (1, 1),
        "pkt": (1, 30000 / 64), "ft_rep": (1, 200), "nst": (1, 50), "crd": (1, 0.8),
    }  # fmt: skip
    load_plugin(FOLDER / "crd240.py")
    for method, (task, term) in weights.items():
        published = REGISTRY.get(method).card.published
        assert (method, published.task, published.term) == (method, task, term)
    assert {*weights, "ab", "fsp"} == set(config.methods)  # whose second stages are cross-entropy alone
    assert {REGISTRY.get(method).card.first.epochs(240) for method in ("ab", "fsp", "ft_rep")} == {30}
    recipe = recipe_file(config.recipe)
    rates = {student: recipe.resolve(student, {}).lr for student in (pair.partition("/")[2] for pair in config.pairs)}
    light = {"mobilenetv2_half", "shufflenetv1", "shufflenetv2"}
    assert {student for student, rate in rates.items() if rate == 0.01} == light
    assert {rate for student, rate in rates.items() if student not in light} == {0.05}
    assert (recipe.pairing, len(config.pairs), config.seeds) == ("left", 13, (0, 1, 2, 3, 4))
    assert set(table.instead) == {"cc", "ft", "fitnet"}


@pytest.mark.slow
def test_the_variants_train(tmp_path, monkeypatch):
    """On networks of equal channels and sizes, as its pairs have; its first stages too."""
    monkeypatch.setenv("KDZOO_CACHE", str(tmp_path / "cache"))
    study = read_study(study_file("aber200"))
    bench = study.config(study.stage("cifar10"))
    config = {
        "name": "b", "results": str(tmp_path), "data": "digits", "pairs": "digits_student/digits_student", "recipe": "digits",
        "epochs": 1, "limit": 128, "val_fraction": 0, "seeds": 1, "refit": False, "allow_chance_teacher": True, "threads": 1, "jobs": 1,
        "methods": [*(method for method in bench.methods if method.endswith("_aber")), *REP],
        "plugin": [*bench.plugin, str(FOLDER / "crd240.py")],
        "keep": "nothing",
    }  # fmt: skip
    outcome = run(prepare(bench_config(config, None)), None, lambda _: None, retry_failed=False)
    assert outcome.failed == {}
    assert {run_id.partition("-")[0] for run_id in outcome.done} == {"none", "hinton", *study.published[0].instead.values(), *REP}
