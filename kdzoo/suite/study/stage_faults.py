"""What is wrong with the stages of a study: their names, and what they take from earlier ones."""

from __future__ import annotations

from contextlib import suppress

from kdzoo.errors import InputError, unknown
from kdzoo.suite.plan.config import CONTROLS, KD, BenchConfig
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.refit import refit_seeds, validation_share, wants_refit
from kdzoo.suite.study.choice_faults import wrong_keys, wrong_pair
from kdzoo.suite.study.study import Study, StudyStage, methods_of, step_seeds
from kdzoo.suite.study.which import Of, Which

OWN_KEYS = ("name", "results", "device", "jobs", "threads", "wandb", "checkpoint_seconds")
"""of a bench, what a study sets itself or the command line says"""


def wrong_stages(study: Study) -> list[str]:
    """Names that stand twice, keys that a study sets itself, and stages that are no earlier ones."""
    problems: list[str] = []
    earlier: list[str] = []
    for stage in study.stages:
        if stage.name in earlier:
            problems.append(f"stages.{stage.name}: stands there twice")
        strangers = [of.stage for of in stage.before if of.stage not in earlier]
        problems += [f"stages.{stage.name}: {unknown('earlier stage', name, earlier)}" for name in strangers]
        problems += [f"stages.{stage.name}: {text}" for of in stage.before if of.stage in earlier for text in _wrong_runs(study, of, stage)]
        own = [key for key in stage.bench if key in OWN_KEYS]
        problems += [f"stages.{stage.name}.bench.{key}: not a key of a study; the command line or the stage's name says it" for key in own]
        if stage.teacher and "teacher" in stage.bench:
            problems.append(f"stages.{stage.name}.bench.teacher: given twice, here and in teacher")
        earlier.append(stage.name)
    return problems


def wrong_races(study: Study) -> list[str]:
    """What a race asks for that the stage it names does not have."""
    problems: list[str] = []
    names = [stage.name for stage in study.stages]
    raced: list[str] = []
    for at, stage in enumerate(study.stages):
        race = stage.race
        if race is None:
            continue
        where = f"stages.{stage.name}.race"
        own = [key for key in ("bench", "teacher", "settings") if getattr(stage, key)]
        problems += [f"stages.{stage.name}.{key}: a race has none; it trains more seeds of stage {race.stage}" for key in own]
        if race.stage not in names[:at]:
            problems.append(f"{where}: {unknown('earlier stage', race.stage, names[:at])}")
            continue
        if study.stage(race.stage).race is not None:
            problems.append(f"{where}: stage {race.stage} is a race itself; name the stage that it trains more seeds of")
            continue
        if race.stage in raced:
            problems.append(f"{where}: another race trains more seeds of stage {race.stage} already")
        raced.append(race.stage)
        with suppress(InputError):  # told with the faults of its bench
            problems += [f"{where}: {fault}" for fault in _faults_of_race(study, race)]
    return problems


def _faults_of_race(study: Study, race: Race) -> list[str]:
    config = study.config(study.stage(race.stage))
    if not wants_refit(config) or not validation_share(config):
        return [f"stage {race.stage} trains no chosen settings again with fresh seeds; expected refit: true and a val_fraction there"]
    faults: list[str] = []
    takes, rivals = race.best + race.widest, [method for method in methods_of(study, race.stage) if method not in CONTROLS]
    if takes > len(rivals):
        faults.append(f"best and widest take {takes} methods, but stage {race.stage} trains {len(rivals)} beside the controls")
    for key, method in (("seeds", ""), ("control_seeds", KD)):
        number, trained = race.seeds_for(method), len(refit_seeds(method, config))
        if number < trained:
            faults.append(f"{key}: expected at least the {trained} that stage {race.stage} trains, got {number}")
    return faults


def _wrong_runs(study: Study, of: Of, stage: StudyStage) -> list[str]:
    """What keeps a stage from taking runs of an earlier one."""
    source = study.stage(of.stage)
    if source.race is not None:
        return [f"stage {of.stage} is a race, whose runs stand in stage {source.race.stage}; name that one"]
    if source.step is not None and of is stage.teacher:
        return _wrong_network(source, stage.teacher)
    if source.step is not None:
        return [f"stage {of.stage} is a step ({source.kind}) and has no runs; expected a stage that trains"]
    methods = methods_of(study, of.stage)
    if methods and of.method not in methods:
        return [unknown(f"method of stage {of.stage}", of.method, methods)]
    if methods and (problems := [*wrong_pair(study, of.stage, of.pair), *wrong_keys(of.method, of.setting)]):
        return problems
    reads_networks = stage.step is not None or of is stage.teacher
    if methods and reads_networks and "student" not in study.config(source).keep:
        return [f"stage {of.stage} keeps no students, which {'a step reads' if stage.step else 'teach'}; add student to its keep"]
    return []


def _wrong_network(source: StudyStage, teacher: Which) -> list[str]:
    """What keeps the network of a step from teaching a stage."""
    assert source.step is not None
    if not source.step.teaches:
        return [f"stage {source.name} is a step ({source.kind}) that makes no network; expected a stage that trains"]
    beside = [key for key in ("method", "pair", "setting") if key in teacher.model_fields_set]
    problems = [f"stage {source.name} is a step ({source.kind}), whose network has no {' or '.join(beside)}"] if beside else []
    if len(teacher.seeds) > 1:
        problems.append(f"stage {source.name} is a step ({source.kind}): expected one seed, got {', '.join(map(str, teacher.seeds))}")
    return problems


def wrong_seeds(study: Study, seeds: int | None = None) -> list[str]:
    """Runs that stages take from earlier ones with seeds that those do not train, where each stage has `seeds` of them or its own."""
    problems: list[str] = []
    benches: dict[str, BenchConfig] = {}
    results: dict[str, tuple[int, ...]] = {}
    for stage in study.stages:
        for of in stage.before:
            wanted = getattr(of, "seeds", None) or ()
            trained = results.get(of.stage, benches[of.stage].seeds_for(of.method) if of.stage in benches else wanted)
            if missing := [str(seed) for seed in wanted if seed not in trained]:
                word = "seed" if len(missing) == 1 else "seeds"
                known = ", ".join(map(str, trained))
                act = "is not done for" if of.stage in results else "does not train"
                problems.append(f"stages.{stage.name}: stage {of.stage} {act} {word} {', '.join(missing)}; its seeds: {known}")
        if stage.step is not None and (bench := benches.get(stage.step.of.stage)) is not None:
            of_step = step_seeds(study, stage.step, seeds)
            problems += [f"stages.{stage.name}.{stage.kind}.{problem}" for problem in stage.step.problems(bench, of_step)]
            results[stage.name] = tuple(stage.step.groups(of_step))
        with suppress(InputError):  # told with the faults of its bench
            if stage.step is None and stage.race is None:
                benches[stage.name] = study.config(stage, seeds)
    return problems
