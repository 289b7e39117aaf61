"""`kdzoo advise`: what to try for a pair of networks, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from kdzoo.cli.bench_options import read_options, takes_options
from kdzoo.cli.cells import duration
from kdzoo.cli.declare import option
from kdzoo.cli.options import Config, JsonOnly
from kdzoo.cli.output import console, print_json, print_message, print_text, with_label
from kdzoo.errors import InputError, raise_if_any
from kdzoo.runs.options import ONE_RUN, RESULTS
from kdzoo.suite.plan.config import BenchConfig

OPTIONS = ("teacher", "student", "data", "data_root", "limit", "val_fraction", "split_seed", "recipe", "epochs", "lr", "set", "plugin")
"""the keys of a bench that say what is to be distilled"""


@takes_options(*OPTIONS, *ONE_RUN, before="trials")
def advise(
    trials: Annotated[
        Path | None,
        option(
            text="A table of trials in place of kdzoo's own, as `benchmarks/advice.py` writes it.",
            default="those of kdzoo's own benches",
            panel=RESULTS,
            metavar="FILE",
        ),
    ] = None,
    config: Config = None,
    as_json: JsonOnly = False,
    **keys: Any,
) -> int:
    """Say what to try for a teacher, a student and data, before anything is trained.

    Measures the teacher on validation images (accuracy, calibration, entropy at several temperatures) and the dose of every
    method's published weight on these networks, and estimates the hours. It recommends methods, temperatures and doses by what
    they gained over tuned plain KD in earlier benches; results/advice has how far such advice was right. The teacher has to be
    trained already.

    \b
    Examples:
      kdzoo advise --teacher resnet20 --student resnet8 --data cifar10_16 --recipe cifar16
      kdzoo advise --teacher my_resnet50.pth --student mobilenetv3_small_100 --data folder:photos/ --json
    """
    from dataclasses import asdict

    from rich.console import Console

    from kdzoo.cli.interruption import raise_if_interrupted
    from kdzoo.suite.plan.first_look import missing_files

    options = read_options(keys)
    if config is not None:
        from kdzoo.suite.plan.yaml_files import read_yaml

        in_file = read_yaml(config)
        ignored = sorted(in_file.keys() - {*OPTIONS, *ONE_RUN})
        if ignored:
            print_message(f"config: what says what is to be tried is not read: {', '.join(ignored)}")
        options = {**{name: value for name, value in in_file.items() if name not in ignored}, **options}
    if missing := [name for name in ("teacher", "student") if name not in options]:
        raise InputError(*(f"{name}: expected a network's name; give --{name}" for name in missing))
    data = str(options.get("data", BenchConfig.model_fields["data"].get_default()))
    raise_if_any(missing_files(data, (str(options["teacher"]), str(options["student"]))))
    from kdzoo.suite.advice.advise import advise as advise_on
    from kdzoo.suite.advice.trials import read_trials
    from kdzoo.suite.run.display import open_display

    raise_if_interrupted()
    with open_display(Console(stderr=True) if as_json else console()) as display:
        advice = advise_on(options, display.handle, None if trials is None else read_trials(trials))
    if as_json:
        print_json(asdict(advice))
        return 0
    for line in lines_of(advice):
        print_text(with_label(line))
    return 0


def lines_of(advice: Any) -> list[tuple[str, str]]:
    """The advice as lines with labels."""
    from kdzoo.suite.advice.words import capacity_line, choice_lines, dose_lines, kept_lines, passed_over, teacher_lines

    missing = [
        "not trained yet, so that neither it nor any dose could be measured",
        f"train it, then ask again: {advice.teacher_command}",
        *(f"or name one that was trained otherwise: {line}" for line in kept_lines(advice)),
    ]
    teacher = teacher_lines(advice.teacher) if advice.teacher is not None else missing if advice.teacher_command else ["not measured"]
    return [
        ("pair", f"{advice.pair} on {advice.data}"),
        *_labelled("teacher", teacher),
        *_labelled("student", [capacity_line(advice.capacity)] if advice.capacity else []),
        *_labelled("doses", dose_lines(advice)),
        *_labelled("left out", passed_over(advice)),
        ("try", "in this order, each beside plain KD:"),
        *(("", line) for line in choice_lines(advice.choices)),
        ("grounds", f"{len(advice.tables)} tables of earlier benches, on {', '.join(dict.fromkeys(data for _, data, _ in advice.tables))}"),
        ("", "so few tables say little about other networks and data: take it as an order to try in"),
        ("time", f"about {duration(advice.seconds)} for one seed of each"),
        ("next", advice.command),
    ]


def _labelled(label: str, texts: list[str]) -> list[tuple[str, str]]:
    return [(label if number == 0 else "", text) for number, text in enumerate(texts)]
