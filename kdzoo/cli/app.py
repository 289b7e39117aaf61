"""`kdzoo`: its verbs, and how every one of them ends.

Exit codes: 0 success, 1 a run or a check failed (or a fault of kdzoo itself), 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.main import get_command

from kdzoo.cli.declare import EXIT_CODES, Group, UsageFaults, option
from kdzoo.cli.interruption import INTERRUPTED, MESSAGE, Interrupted, was_interrupted
from kdzoo.cli.output import print_message
from kdzoo.cli.streams import DurableStream, make_streams_durable
from kdzoo.cli.verbs import Verbs
from kdzoo.errors import FORMER_NAMES, InputError, KdzooError, WorkFailed, add_clause, problems_of
from kdzoo.suite.run.torchrun import TorchrunProcess, asks_for_cpu, asks_for_torchrun, torchrun_process
from kdzoo.text import first_line
from kdzoo.version import VERSION

DONE, FAILED, BAD_INPUT = 0, 1, 2
DEBUG = "--debug"
COMPLETION = "_KDZOO_COMPLETE"
"""set by the shell when it asks for completions"""

typer_app = typer.Typer(
    name="kdzoo",
    cls=Group,
    rich_markup_mode="rich",
    epilog=f"{EXIT_CODES}\n\nkdzoo COMMAND --help lists the options of a command with their defaults.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


def _version(show: bool) -> None:
    if show:
        print(f"kdzoo {VERSION}")
        raise typer.Exit


@typer_app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.", metavar="")
    ] = False,
    debug: Annotated[bool, option(DEBUG, text="Show the traceback of an error; accepted anywhere on the line.", default="off")] = False,
) -> None:
    """Knowledge-distillation methods, and the benchmark that ranks them honestly.

    \b
    Start here:
      kdzoo bench --quick              a demonstration, in under a minute
      kdzoo bench                      the default bench, one to two minutes
      kdzoo methods                    what can be compared
      kdzoo explain hinton --alpha 0.9
      kdzoo distill photos/ --teacher resnet50:pretrained --out small/
    """


app: Any = get_command(typer_app)
app.commands = Verbs()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and leave with its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    streams = make_streams_durable()
    if asks_for_torchrun(words) and (process := torchrun_process(os.environ)) is not None:
        _run_as_process(process, words, streams)
    sys.exit(_status_and_output(words, streams))


def _status_and_output(words: Sequence[str], streams: Iterable[DurableStream]) -> int:
    """Run a command line; its exit status, or FAILED where what it prints cannot be written, which is told last."""
    status = status_of([word for word in words if word != DEBUG] or ["--help"], debug=DEBUG in words)
    sys.stdout.flush()
    faults = [stream.fault for stream in streams if stream.fault is not None]
    for fault in faults:
        print_message(f"the output cannot be written: {fault}")
    return status or (FAILED if faults else DONE)


def _run_as_process(process: TorchrunProcess, words: Sequence[str], streams: Iterable[DurableStream]) -> NoReturn:
    """Leave with the status of a command line that torchrun has started several times: the first runs it, the others train with it."""
    from kdzoo.suite.run.launchers.gpus import see_own_gpu

    try:
        if not asks_for_cpu(words):
            see_own_gpu(process.local_rank, os.environ)  # before torch counts them
        from kdzoo.suite.run.follower import follow_leader, ignore_signals
        from kdzoo.suite.run.followers import dismiss, join_torchrun, of_torchrun

        if process.rank:
            ignore_signals()
        join_torchrun(on_cpu=asks_for_cpu(words))
    except InputError as error:
        sys.exit(_report_problems(error.problems, debug=False))
    if process.rank:
        follow_leader(of_torchrun())
        sys.exit(DONE)
    status = _status_and_output(words, streams)
    dismiss()
    sys.exit(status)


def status_of(arguments: Sequence[str], *, debug: bool) -> int:
    """Run a command line; the exit status, with every error said on standard error."""
    try:
        return app(list(arguments), prog_name="kdzoo", standalone_mode=False, obj=shlex.join(["kdzoo", *arguments])) or DONE
    except Interrupted as error:
        print_message(str(error))
        return INTERRUPTED
    except WorkFailed as error:
        for line in str(error).splitlines():
            print_message(line)
        return FAILED
    except KdzooError as error:
        problems = error.problems if isinstance(error, InputError) else str(error).splitlines()
        return _report_problems(problems, debug)
    except typer.Abort:
        return INTERRUPTED
    except SystemExit as error:  # typer's completion ends the process; no other code of kdzoo's does, but a plugin's may
        if COMPLETION in os.environ or {"--install-completion", "--show-completion"} & set(arguments[:1]):
            return error.code if isinstance(error.code, int) else DONE
        print_message(
            f"code that kdzoo called ended the process (sys.exit({error.code or 0})) before the work was done; {DEBUG} shows where"
        )
        if debug:
            traceback.print_exc()
        return FAILED
    except Exception as error:
        if was_interrupted():  # an import that is interrupted may fail with anything
            print_message(MESSAGE)
            return INTERRUPTED
        if isinstance(error, UsageFaults):
            return _report_problems([problem for fault in error.faults for problem in _usage_problems(fault)], debug)
        if _is_usage(error):
            return _report_problems(_usage_problems(error), debug)
        if debug:
            traceback.print_exc()
        else:
            reason = first_line(error) or "no message"
            print_message(f"this is a bug in kdzoo, not a mistake of yours: {type(error).__name__}: {reason}")
            print_message(f"run the same command with {DEBUG} for the traceback; finished work is kept")
        return FAILED


def _report_problems(problems: Sequence[str], debug: bool) -> int:
    if debug:
        traceback.print_exc()
    for problem in problems:
        print_message(problem)
    return BAD_INPUT


def _is_usage(error: Exception) -> bool:
    """Whether it is the option parser's own, whichever copy of click it comes from."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage_problems(error: Exception) -> list[str]:
    """What the parser found, in a line; nothing where it has just printed the help."""
    text = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path if context else 'kdzoo'} --help"
    if (name := getattr(error, "option_name", "")) and hasattr(error, "possibilities"):
        near = _key_of_engine(name, context) or _near_options(name, error.possibilities or ())
        return [add_clause(f"unknown option {name}{near}", hint)]
    if isinstance(cause := error.__cause__, ValidationError):
        (problem,) = problems_of(cause, max(error.param.opts, key=len))  # type: ignore[attr-defined]
        return [add_clause(PARSING.sub("", problem).rstrip("."), hint)]
    if extra := re.search(r"unexpected extra arguments?(?:\(s\))? \((.+)\)", text):
        return [f"unexpected argument: {extra[1]}; {hint}"]
    return [add_clause(text.rstrip("."), hint)] if text else []


NEAR = 0.75
"""how alike an option has to be for a suggestion: the parser's own takes --help and --data for near --alpha"""
PARSING = re.compile(r", unable to parse string as an? \w+")
"""what pydantic adds where it read text"""


def _near_options(name: str, near: Iterable[str]) -> str:
    """`; did you mean --methods?`, by the options that are spelt alike, or the present name of one that was renamed."""
    present = FORMER_NAMES.get(name.strip("-").replace("-", "_"))
    options = [f"--{present.replace('_', '-')}"] if present is not None else difflib.get_close_matches(name, near, cutoff=NEAR)
    return f"; did you mean {' or '.join(options)}?" if options else ""


def _key_of_engine(name: str, context: Any) -> str:
    """`; did you mean --launcher-option address=VALUE?` for --ray-address, where a command takes options of Ray's and Slurm's."""
    engine, _, key = name.strip("-").replace("-", "_").partition("_")
    takes_some = context is not None and any(parameter.name == "launcher_option" for parameter in context.command.params)
    if not takes_some or not key or engine not in ("ray", "slurm"):
        return ""
    if engine == "ray":
        from kdzoo.suite.run.launchers.ray import OPTIONS

        keys = difflib.get_close_matches(key, OPTIONS, 1)
    else:
        keys = [f"slurm_{key}"]  # submitit's name for an option of sbatch's
    return f"; did you mean --launcher-option {keys[0]}=VALUE?" if keys else ""
