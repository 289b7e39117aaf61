"""The variants of published programs that their studies train, against their formulas written in NumPy, and a step of each."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import load_plugin
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.run.bench import run
from kdzoo.suite.run.launchers.here import Here
from kdzoo.suite.run.prepare import prepare
from kdzoo.suite.study.hours import count_runs
from kdzoo.suite.study.study import FOLDER
from kdzoo.suite.study.study_files import read_study, study_file

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


def attention_distance(s, t):
    attention = [[unit((f**2).sum(1).reshape(BATCH, -1), 1e-6) for f in features] for features in (s, t)]
    return np.mean([((a - b) ** 2).mean() for a, b in zip(*attention, strict=True)])


def hint_distance(s, t):
    return ((s - t) ** 2).mean()


def selectivity(s, t):
    def kernel(a, b):
        a, b = (unit(f.reshape(-1, f.shape[2] * f.shape[3])).reshape(*f.shape[:2], -1) for f in (a, b))
        return (np.einsum("bcp,bdp->bcd", a, b) ** 2).mean()

    return kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)


def similarity(s, t):
    def similar(f):
        rows = f.reshape(BATCH, -1)
        return unit(rows @ rows.T)

    return np.mean([((similar(a) - similar(b)) ** 2).sum() / BATCH**2 for a, b in zip(s, t, strict=True)])


def flow_distance(s, t):
    def flow(a, b):
        ratio = a.shape[2] // b.shape[2]
        pooled = a.reshape(BATCH, a.shape[1], b.shape[2], ratio, b.shape[3], ratio).mean((3, 5))
        return np.einsum("bchw,bdhw->bcd", pooled, b) / (b.shape[2] * b.shape[3])

    return np.mean([((flow(a, b) - flow(c, d)) ** 2).mean() for a, b, c, d in zip(s[:-1], s[1:], t[:-1], t[1:], strict=True)])


def factor_distance(s, t):
    return np.abs(unit(s.reshape(BATCH, -1)) - unit(t.reshape(BATCH, -1))).mean()


def boundary_distance(s, t, m=2.0):
    def boundary(a, b):
        return np.where(b <= 0, np.where(a > -m, (a + m) ** 2, 0), np.where(a <= m, (a - m) ** 2, 0)).mean()

    return np.mean([boundary(a, b) for a, b in zip(s, t, strict=True)])


def overhaul_distance(s, t):
    def overhaul(a, b):
        margin = np.array([b[:, c][b[:, c] < 0].mean() for c in range(b.shape[1])])[None, :, None, None]
        target = np.maximum(b, margin)
        return np.where((a <= target) & (target <= 0), 0, (a - target) ** 2).mean()

    return np.mean([overhaul(a, b) for a, b in zip(s, t, strict=True)])


def likelihood(means, t, v):
    return np.mean([((a - b) ** 2 / w[:, None, None] + np.log(w)[:, None, None]).mean() / 2 for a, b, w in zip(means, t, v, strict=True)])


def cam_distance(s, t):
    def cam(gradients):
        return unit(np.maximum((gradients.mean((2, 3), keepdims=True) * gradients).sum(1), 0).reshape(BATCH, -1))

    return np.abs(cam(s) - cam(t)).mean()


def kernel_distance(s, t):
    def shares(rows):
        kernel = (unit(rows, 1e-6) @ unit(rows, 1e-6).T + 1) / 2
        return kernel / kernel.sum(1, keepdims=True)

    p, q = shares(t), shares(s)
    return (p * np.log((p + 1e-6) / (q + 1e-6))).mean()


def neighbours(s, t):
    return np.mean([(np.abs(s[i] - t[i]) * np.abs(s[i + 1] - t[i + 1])).sum() for i in range(BATCH - 1)])


def factor_attention(s, t):
    one, other = (unit((factor**2).mean(1).reshape(BATCH, -1)) for factor in (s, t))
    return np.abs(one - other).mean()


def test_maps_are_compared_as_the_zoos_formulas_say(aber):
    s, t = maps(0, positive=True), maps(1, positive=True)
    student, teacher = tensors(s, t)
    assert float(aber.at_aber(student, teacher)) == pytest.approx(attention_distance(s, t), rel=1e-6)
    assert float(aber.fitnet_aber(student, teacher)) == pytest.approx(hint_distance(s[-1], t[-1]))
    assert float(aber.nst_aber(student, teacher)) == pytest.approx(selectivity(s[-1], t[-1]))
    assert float(aber.sp_aber(student, teacher)) == pytest.approx(similarity(s, t))
    assert float(aber.fsp_aber(student, teacher)) == pytest.approx(flow_distance(s, t))
    assert float(aber.ft_aber(student[-1], teacher[-1])) == pytest.approx(factor_distance(s[-1], t[-1]))


def test_signed_maps_are_compared_as_the_zoos_formulas_say(aber):
    s, t = maps(2), maps(3)
    student, teacher = tensors(s, t)
    assert float(aber.ab_aber(student, teacher)) == pytest.approx(boundary_distance(s, t))
    assert float(aber.ofd_aber(student, teacher)) == pytest.approx(overhaul_distance(s, t), rel=1e-5)
    v = [np.linspace(0.5, 2, shape[0]) for shape in STAGES]
    assert float(aber.vid_aber(student, teacher, [torch.from_numpy(one) for one in v])) == pytest.approx(likelihood(s, t, v))
    assert float(aber.lwm_aber(student[1], teacher[1])) == pytest.approx(cam_distance(s[1], t[1]))


def test_embeddings_are_compared_as_the_zoos_formula_says(aber):
    s, t = np.random.default_rng(4).normal(size=(2, BATCH, 7))
    assert float(aber.pkt_aber(torch.from_numpy(s), torch.from_numpy(t))) == pytest.approx(kernel_distance(s, t))


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
    s, t = np.random.default_rng(5).normal(size=(2, BATCH, 7))
    assert float(rep.cc_rep(torch.from_numpy(s), torch.from_numpy(t))) == pytest.approx(neighbours(s, t))
    s, t = maps(6)[1], maps(7)[1]
    assert float(rep.ft_rep(torch.from_numpy(s), torch.from_numpy(t))) == pytest.approx(factor_attention(s, t))


class Recorded:
    """What a network gave for a batch, another number in every map: as arrays, and as methods see it.

    Class scores are c . F^2 / 2 summed over the maps, so that the gradient of class y at a map is c_y F.
    """

    classes = 3
    targets = np.array([0, 2, 1, 1, 0])

    def __init__(self, seed):
        generator = np.random.default_rng(seed)
        self.stages, self.preact = maps(100 + seed, positive=True), maps(200 + seed)
        self.embedding = generator.normal(size=(BATCH, 7))
        self.weights = [generator.normal(size=(self.classes, *shape)) for shape in STAGES]

    def gradients(self, stage):
        return self.weights[stage][self.targets] * self.stages[stage]

    def outputs(self, images=None, need=None):
        stages = [torch.from_numpy(one).requires_grad_() for one in self.stages]
        logits = sum(torch.einsum("kchw,bchw->bk", torch.from_numpy(w), f**2 / 2) for w, f in zip(self.weights, stages, strict=True))
        values = {
            Need.STAGES: stages,
            Need.PREACT: [torch.from_numpy(one) for one in self.preact],
            Need.EMBEDDING: torch.from_numpy(self.embedding),
            Need.LOGITS: logits,
            Need.NETWORK: self,
        }
        return Outputs.of(values, owner="network")

    @property
    def shapes(self):
        return Shapes(self.classes, 7, tuple(StageShape(*shape, reduction=64 / shape[1]) for shape in STAGES))


def applied(module, features):
    with torch.no_grad():
        return module(torch.from_numpy(features)).numpy()


def leaky_chain(features, *parts):
    """Layers one after the other, each (or its batch norm) followed by a leaky ReLU of slope 0.1, whatever the module says."""
    for part in parts:
        layers = [layer for layer in part if not isinstance(layer, torch.nn.LeakyReLU)]
        for layer, after in zip(layers, [*layers[1:], None], strict=True):
            features = applied(layer, features)
            if not isinstance(after, torch.nn.BatchNorm2d):
                features = np.where(features > 0, features, 0.1 * features)
    return features


def paraphrase_distance(t, module):
    paraphraser = module.paraphraser
    return hint_distance(leaky_chain(t.stages[2], paraphraser.encode, paraphraser.decode), t.stages[2])


def factors(s, t, module):
    return leaky_chain(s.stages[2], module.translator), leaky_chain(t.stages[2], module.paraphraser.encode)


def variances(module):
    return [np.log1p(np.exp(scale.detach().numpy())) + 1e-6 for scale in module.scales]


CLASSES = {
    "at_aber": lambda s, t, module: attention_distance(s.stages, t.stages),
    "fitnet_aber": lambda s, t, module: hint_distance(s.stages[2], t.stages[2]),
    "nst_aber": lambda s, t, module: selectivity(s.stages[2], t.stages[2]),
    "sp_aber": lambda s, t, module: similarity(s.stages, t.stages),
    "pkt_aber": lambda s, t, module: kernel_distance(s.embedding, t.embedding),
    "fsp_aber": lambda s, t, module: flow_distance(s.stages, t.stages),
    "ab_aber": lambda s, t, module: boundary_distance(s.preact, t.preact),
    "ft_aber_paraphraser": lambda s, t, module: paraphrase_distance(t, module),
    "ft_aber": lambda s, t, module: factor_distance(*factors(s, t, module)),
    "lwm_aber": lambda s, t, module: cam_distance(s.gradients(1), t.gradients(1)),
    "vid_aber": lambda s, t, module: likelihood(
        [applied(*one) for one in zip(module.means, s.stages, strict=True)], t.stages, variances(module)
    ),
    "ofd_aber": lambda s, t, module: overhaul_distance([applied(*one) for one in zip(module, s.preact, strict=True)], t.preact),
    "cc_rep": lambda s, t, module: neighbours(applied(module[0], s.embedding), applied(module[1], t.embedding)),
    "ft_rep_paraphraser": lambda s, t, module: paraphrase_distance(t, module),
    "ft_rep": lambda s, t, module: factor_attention(*factors(s, t, module)),
    "fitnet_rep": lambda s, t, module: hint_distance(np.maximum(applied(module[1], applied(module[0], s.stages[1])), 0), t.stages[1]),
}
"""what each class comes to, from the maps that its program reads"""


@pytest.mark.usefixtures("aber", "rep")
@pytest.mark.parametrize("name", CLASSES)
def test_every_class_reads_the_maps_that_its_program_reads(name):
    student, teacher = Recorded(1), Recorded(2)
    method = REGISTRY.get(name)(**({"norm": False} if name.startswith("ft_aber") else {}))
    torch.manual_seed(0)
    data = DataFacts(BATCH, Recorded.classes, torch.from_numpy(Recorded.targets))
    module = method.build(student.shapes, teacher.shapes, data).double()
    with torch.no_grad():
        for parameter in module.parameters():  # so that no two layers or stages are alike
            parameter.add_(0.3 * torch.randn_like(parameter))
    batch = Batch(
        inputs=torch.zeros(BATCH, 3, 8, 8, dtype=torch.uint8),
        targets=torch.from_numpy(Recorded.targets),
        index=torch.arange(BATCH),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator(),
    )
    needs = method.card.needs
    loss = method.loss(student.outputs().restrict_to(needs.student), teacher.outputs().restrict_to(needs.teacher), batch, module)
    assert float(loss.detach()) == pytest.approx(CLASSES[name](student, teacher, module), rel=1e-5)


@pytest.mark.usefixtures("aber", "rep")
def test_no_class_is_left_out():
    ours = {name for name in REGISTRY.names() if "_aber" in name or "_rep" in name}
    assert ours == set(CLASSES)


def test_convolutions_of_the_zoos_factors_start_as_in_its_program(aber):
    for norm in (True, False):
        first = aber.convolutions([(40, 50)], norm=norm)[0]
        assert (first.bias is None) == norm
        assert float(first.weight.detach().std()) == pytest.approx((2 / (9 * 50)) ** 0.5, rel=0.05), "He's variance 2 / (9 outputs)"
    assert first.bias.abs().max() == 0


def test_the_paraphrasers_hand_their_weights_to_the_second_stage(aber, rep):
    """Under the same names and shapes."""
    shapes = Recorded(1).shapes
    for first, second in (("ft_aber_paraphraser", "ft_aber"), ("ft_rep_paraphraser", "ft_rep")):
        assert REGISTRY.get(second).card.pretrain.method == first
        states = [REGISTRY.get(name)().build(shapes, shapes, None).state_dict() for name in (first, second)]
        before, after = ({key: value.shape for key, value in state.items() if key.startswith("paraphraser")} for state in states)
        assert before == after


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
    assert {REGISTRY.get(method).card.pretrain.epochs(240) for method in ("ab", "fsp", "ft_rep")} == {30}
    recipe = recipe_file(config.recipe)
    rates = {student: recipe.resolve(student, {}).lr for student in (pair.partition("/")[2] for pair in config.pairs)}
    light = {"mobilenetv2_half", "shufflenetv1", "shufflenetv2"}
    assert {student for student, rate in rates.items() if rate == 0.01} == light
    assert {rate for student, rate in rates.items() if student not in light} == {0.05}
    assert (recipe.pairing, len(config.pairs), config.seeds) == ("left", 13, (0, 1, 2, 3, 4))
    assert set(table.instead) == {"cc", "ft", "fitnet"}


@pytest.mark.slow
def test_the_variants_train(tmp_path, monkeypatch):
    """On networks of equal channels and sizes, as its pairs have; its pretrain stages too."""
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
    outcome = run(prepare(bench_config(config, None)), Here(), lambda _: None, retry_failed=False)
    assert outcome.failed == {}
    assert {run_id.partition("-")[0] for run_id in outcome.done} == {"none", "hinton", *study.published[0].instead.values(), *REP}
