"""Help, completion and lists: every default is told, no name is cut, a Tab is quick, a list fits its terminal."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench_words import bench_of

from kdzoo.cli.app import app
from kdzoo.cli.bench_options import read_options
from kdzoo.cli.cells import compact, duration
from kdzoo.cli.complete import timm_names
from kdzoo.cli.declare import EXIT_CODES
from kdzoo.cli.references import reference
from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.models.known import own_networks
from kdzoo.runs.options import SPEED
from kdzoo.suite.plan.layers import bench_config
from kdzoo.text import columns_that_fit, in_encoding, shortened

LISTS = [["methods"], ["pairs"], ["recipes"], ["networks"], ["data"], ["teachers"], ["status"]]


def commands(command=None, name=()):
    """Every command with its words, those of groups too."""
    command = command or app
    if not hasattr(command, "commands"):
        return [(name, command)]
    return [pair for word, inner in command.commands.items() for pair in commands(inner, (*name, word))]


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def words_of(help_text: str) -> str:
    """The text of a help page without its frames, on one line."""
    return " ".join(re.sub("[│╭╮╰╯─|+]", " ", help_text).split())


@pytest.mark.parametrize(("name", "command"), commands(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_help_shows_every_default_and_whole_names_at_80_columns(kdzoo, narrow, name, command):
    page = kdzoo(*name, "--help").out
    assert max(map(len, page.splitlines())) <= 80
    assert EXIT_CODES in words_of(page)
    assert "…" not in page
    for option in command.params:
        flags = [flag for flag in [*option.opts, *option.secondary_opts] if flag.startswith("-")]
        assert all(re.search(rf"{re.escape(flag)}\b", page) for flag in flags), option
        assert option.required or "[default: " in option.help.replace("\\", "") or option.name == "help", option.name
        if option.metavar:
            assert option.metavar in page


@pytest.mark.parametrize("words", [["check"], ["run"], ["compare"], ["data", "show"], []], ids=" ".join)
def test_help_names_no_types(kdzoo, narrow, words):
    page = kdzoo(*words, "--help").out
    assert not re.search(r"<\w+>|\{\w+\}", page)
    if words == ["check"]:
        assert "Usage: kdzoo check [OPTIONS] FILE" in page
        assert "│ *    FILE        A Python file that registers methods. [required]" in page


MANY_RUNS = {"--jobs", "-j", "--stack-students", "--fill-gpu"}
"""options that mean nothing where one run is trained"""


@pytest.mark.parametrize("command", ["train", "run", "distill"])
def test_one_run_is_executed_with_the_options_of_a_bench(command):
    named = ("device", "jobs", "threads", "checkpoint_seconds", "allow_chance_teacher")

    def execution(name: str) -> set[str]:
        (found,) = [inner for words, inner in commands() if words == (name,)]
        options = [one for one in found.params if one.name in named or getattr(one, "rich_help_panel", None) == SPEED]
        return {flag for one in options for flag in [*one.opts, *one.secondary_opts]}

    assert len(execution("bench")) > len(named)
    assert execution("bench") - MANY_RUNS == execution(command)


def test_an_option_that_no_bench_has_is_not_silently_dropped():
    with pytest.raises(InputError, match="treads: unknown; did you mean 'threads'"):
        bench_config(read_options({"device": "cpu", "treads": 2}), None)


def test_the_options_of_a_bench_are_grouped_by_what_one_wants(kdzoo, narrow):
    page = kdzoo("bench", "--help").out
    headings = re.findall(r"╭─ (.+?) ─", page)
    assert headings == [
        "Options",
        "What is compared",
        "Your own methods, networks and data",
        "Networks and data",
        "How it is trained",
        "What is kept",
        "Where it runs",
        "Speed and memory",
    ]
    assert re.findall(r"^│ (-\S+)", page.partition("What is compared")[0], re.MULTILINE) == ["--config", "--help"]


@pytest.mark.parametrize(
    ("option", "default"),
    [("--seeds", "3"), ("--results", "results"), ("--keep", "predictions,student"), ("--label-fraction", "1"), ("--split-seed", "0")],
)
def test_the_default_in_the_help_is_the_one_that_a_bench_takes(option, default):
    bench = app.commands["bench"]
    help_text = next(p for p in bench.params if option in p.opts).help
    assert rf"\[default: {default}]" in help_text
    assert bench_of(option, default) == bench_config({}, None)


# --- completion, by the protocol of each shell


def asked_by(shell: str, line: str, place: Path) -> tuple[int, str]:
    """What kdzoo answers when a shell asks about the end of a line; its exit status."""
    words = line.split(" ")
    environment = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from kdzoo.cli.app import status_of; s = status_of(['--help'], debug=False); "
         "assert 'torch' not in sys.modules and 'timm' not in sys.modules; sys.exit(s)"],
        env={**os.environ, "_KDZOO_COMPLETE": f"complete_{shell}", "KDZOO_CACHE": str(place), **environment},
        cwd=place, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_completes_a_method_after_a_comma_and_a_plus(shell, place):
    status, answer = asked_by(shell, "kdzoo bench --methods hinton,at+review", place)
    assert status == 0
    assert re.findall(r"[\w,+]+reviewkd", answer) == ["hinton,at+reviewkd"]
    if shell == "zsh":
        assert answer.startswith("_arguments")


def completions(line: str) -> list[str]:
    """What bash is answered, in this process."""
    from typer._completion_classes import BashComplete

    words = line.split(" ")[1:]
    return [item.value for item in BashComplete(app, {}, "kdzoo", "_KDZOO_COMPLETE").get_completions(words[:-1], words[-1])]


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("kdzoo bench --methods ", {"hinton", "at", "none", "reviewkd"}),
        ("kdzoo bench --pairs resnet56/", {"resnet56/resnet20"}),
        ("kdzoo bench --pairs digits,wrn", {"digits,wrn_40_2/wrn_16_2"}),
        ("kdzoo bench --recipe ", {"digits", "crd240"}),
        ("kdzoo bench --teacher mobilenetv3_small_1", {"mobilenetv3_small_100"}),
        ("kdzoo bench --student dig", {"digits_student"}),
        ("kdzoo bench --data ", {"digits", "cifar100", "folder:"}),
        ("kdzoo bench --set recipe.ep", {"recipe.epochs="}),
        ("kdzoo bench --keep student,", {"student,checkpoint"}),
        ("kdzoo bench --wandb ", {"online", "offline", "disabled"}),
        ("kdzoo explain at+hin", {"at+hinton"}),
        ("kdzoo train resnet5", {"resnet56"}),
        ("kdzoo data cif", {"cifar10", "cifar100"}),
        ("kdzoo data prepare ", {"mnist", "cifar10", "cifar100"}),
        ("kdzoo leaderboard m", {"mine"}),
        ("kdzoo run hin", {"hinton-0123456789ab"}),
        ("kdzoo lead", {"leaderboard"}),
        ("kdzoo bench --check", {"--checkpoint-seconds"}),
    ],
)
def test_names_are_completed(place, line, some):
    (place / "results" / "mine" / "runs" / "hinton-0123456789ab").mkdir(parents=True)
    (place / "results" / "mine" / "runs" / "hinton-0123456789ab" / "run.json").touch()
    found = completions(line)
    assert some <= set(found)
    begun = line.rpartition(" ")[2]
    assert all(name.startswith(begun) for name in found)


def test_a_method_is_not_offered_twice():
    assert "hinton,hinton" not in completions("kdzoo bench --methods hinton,h")


def test_the_names_that_are_completed_are_all_methods_and_networks_there_are(place):
    import timm

    from kdzoo.models import names
    from kdzoo.models.names import list_networks

    assert set(completions("kdzoo bench --methods ")) == {"none", *REGISTRY.own_names()}
    shipped = set(list_networks()) - set(names.NETWORKS)  # other tests of this process register some, and timm forgets none
    assert set(own_networks()) == {name for name in shipped if timm.model_entrypoint(name).__module__.startswith("kdzoo.")}
    theirs = {name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("timm.")}
    assert set(timm_names()) == theirs


def test_a_real_bash_completes_what_the_installed_script_says(place):
    """`--install-completion` into a home folder of its own, then the function that it defines."""
    home = place / "home"
    (place / "bin").mkdir()
    home.mkdir()
    (place / "bin" / "kdzoo").write_text(f'#!/bin/sh\nexec {sys.executable} -m kdzoo "$@"\n')
    (place / "bin" / "kdzoo").chmod(0o755)
    environment = {**os.environ, "HOME": str(home), "PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
    script = 'kdzoo --install-completion; . "$HOME/.bashrc"; COMP_WORDS=(kdzoo explain fitnet_); COMP_CWORD=2; '
    script += '_kdzoo_completion kdzoo; echo "${COMPREPLY[@]}"; kdzoo --show-completion | head -1'
    said = subprocess.run(["bash", "-c", script], env=environment, cwd=place, capture_output=True, text=True, timeout=120, check=True)
    lines = said.stdout.splitlines()
    assert "bash completion installed" in lines[0]
    assert lines[-2:] == ["fitnet_two_stage", "_kdzoo_completion() {"]
    assert (home / ".bash_completions" / "kdzoo.sh").is_file()


# --- lists


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_a_list_has_a_line_an_entry_at_80_columns_and_names_what_is_left_out(kdzoo, narrow, words):
    rows = json.loads(kdzoo(*words, "--json").out) if words != ["data"] else json.loads(kdzoo("data", "list", "--json").out)
    lines = kdzoo(*words).out.splitlines()
    assert max(map(len, lines), default=0) <= 80
    for row in rows:
        name = next(iter(row.values()))
        assert sum(line.split()[:1] == [name] for line in lines) == 1, name
    text = " ".join(" ".join(lines).split())
    if "more column" in text:
        assert re.search(r"\d more columns?: [\w, -]+ \(in a wider terminal, or with --format csv, md or json\)", text)


def test_prose_is_shortened_between_words_to_the_room_that_is_left(kdzoo, narrow):
    whole = {row["recipe"]: row["description"] for row in json.loads(kdzoo("recipes", "--json").out)}
    lines = {line.split()[0]: line for line in kdzoo("recipes").out.splitlines()[1:] if line.split()[0] in whole}
    assert "8x8 digits; the default bench …" in lines["digits"]
    shown, mark, _ = lines["cifar16"].removeprefix("cifar16").strip().partition("…")
    assert mark
    assert len(shown) >= 20
    assert whole["cifar16"].startswith(shown.strip() + " ")


def test_a_paper_is_told_whole_in_a_list_and_its_url_in_json(kdzoo, narrow):
    page = kdzoo("methods").out
    assert "arXiv:1503.02531" in page
    rows = {row["method"]: row for row in json.loads(kdzoo("methods", "--json").out)}
    assert rows["hinton"]["url"] == "https://arxiv.org/abs/1503.02531"
    assert rows["hinton"]["hyperparameters"] == {"temperature": 4.0}
    assert rows["hinton"]["reads"] == ["logits"]
    for row in rows.values():
        assert reference(row["url"], row["year"]) in page


def test_a_reference_is_a_link_where_the_terminal_knows_links():
    from rich.console import Console

    from kdzoo.cli.cells import link

    screen = Console(force_terminal=True, color_system="standard", width=80, _environ={"TERM": "xterm"})
    with screen.capture() as written:
        screen.print(link("arXiv:1503.02531", "https://arxiv.org/abs/1503.02531"))
    assert re.search(r"\x1b\]8;[^;]*;https://arxiv\.org/abs/1503\.02531\x1b\\.*arXiv:1503\.02531", written.get())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://arxiv.org/abs/1503.02531", "arXiv:1503.02531"),
        ("https://doi.org/10.1145/3097983.3098135", "doi:10.1145/3097983.3098135"),
        ("https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html", "CVPR 2017"),
        ("https://example.org/paper", "example.org"),
        (None, ""),
    ],
)
def test_a_url_is_told_in_a_few_letters(url, words):
    assert reference(url) == words


def test_columns_is_honoured_in_a_pipe(kdzoo, monkeypatch):
    widths = {}
    for columns in ("40", "80", "120", "200", ""):
        monkeypatch.setenv("COLUMNS", columns)
        widths[columns] = max(map(len, kdzoo("methods").out.splitlines()))
    assert widths["40"] <= 40 < widths["80"] <= 80 < widths["120"] <= 120
    assert widths["120"] < widths["200"] <= 200
    whole = json.loads(kdzoo("methods", "--json").out)
    lines = {line.split()[0]: line for line in kdzoo("methods").out.splitlines()}
    assert all((row["title"] or row["summary"]) in lines[row["method"]] for row in whole), "without it no cell is cut"


def test_columns_that_fit_are_shown_in_order_of_importance():
    widths = {"a": 10, "b": 30, "c": 5, "d": 1}
    assert columns_that_fit(widths, 100, gap=2) == ["a", "b", "c", "d"]
    assert columns_that_fit(widths, 10 + 2 + 5 + 2 + 1, gap=2) == ["a", "c", "d"]
    assert columns_that_fit(widths, 3, gap=2) == ["a"]


def test_counts_are_integers_in_json(kdzoo):
    networks = {row["network"]: row for row in json.loads(kdzoo("networks", "--json").out)}
    assert networks["resnet20"] == {"network": "resnet20", "parameters": 278324, "macs": 40818944, "input": [3, 32, 32], "classes": 100}
    recipes = json.loads(kdzoo("recipes", "--json").out)
    assert all(type(row[key]) is int for row in recipes for key in ("epochs", "batch_size"))
    assert {type(row["refit"]) for row in recipes} == {bool}


def test_the_table_of_networks_is_what_the_networks_come_to():
    """Counted again; and, for 10 classes, the papers' own figures to their last digit (He et al. 2016; Zagoruyko, Komodakis 2016)."""
    from kdzoo.models.build import build_network
    from kdzoo.models.measure import network_cost
    from kdzoo.runs.spec import NetworkSpec

    for name, known in own_networks().items():
        channels, height, width = known.input
        spec = NetworkSpec(name=name, classes=known.classes, start="random")
        constants = [0.5] * channels
        network = build_network(spec, channels=channels, side=width, mean=constants, std=constants, seed=0)
        found = network_cost(network, (channels, height, width))
        assert (found.parameters, found.macs) == (known.parameters, known.macs), name
    published = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7, "wrn_40_1": 0.6, "wrn_40_2": 2.2}
    for name, told in published.items():
        channels = 128 if name == "wrn_40_2" else 64
        ours = (own_networks()[name].parameters - 90 * (channels + 1)) / 1e6  # a head of 10 classes
        digit = 0.01 if told < 1 and name != "wrn_40_1" else 0.1
        assert ours == pytest.approx(told, abs=digit), name


@pytest.mark.parametrize(("count", "words"), [(590, "590"), (70330, "70.3 k"), (999_600, "1.00 M"), (1_083_040_768, "1.08 G"), (None, "")])
def test_counts_are_told_to_three_digits(count, words):
    assert compact(count) == words


def test_data_sets_are_listed_with_what_is_in_them_and_how_to_get_them(kdzoo, narrow):
    from kdzoo.data.known import DATA
    from kdzoo.data.sources import load

    page = kdzoo("data").out
    assert re.search(r"digits +1,438\+359 +10 +8x8 grey +built in", page)
    assert re.search(r"cifar100 +50,000\+10,000 +100 +32x32 colour +kdzoo data prepare cifar100", page)
    digits, known = load("digits"), DATA.get("digits")
    assert (len(digits.train.targets), len(digits.test.targets), len(digits.classes)) == (known.train, known.test, known.classes)
    assert (digits.channels, digits.height, digits.width) == known.shape
    told = json.loads(kdzoo("data", "digits", "--json").out)
    assert (told["train"], told["test"], told["classes"]) == (1438, 359, 10)
    assert sum(row["train"] for row in told["counts"]) == 1438


def test_a_data_set_that_is_here_says_where(kdzoo, place):
    """An empty folder, as a download that failed leaves it, is not the data."""
    (place / "sets" / "cifar-10-batches-py").mkdir(parents=True)
    (place / "sets" / "cifar-10-batches-py" / "data_batch_1").touch()
    (place / "sets" / "cifar-100-python").mkdir()
    rows = {row["data"]: row for row in json.loads(kdzoo("data", "list", "--data-root", place / "sets", "--json").out)}
    assert rows["cifar10"]["path"] == str(place / "sets" / "cifar-10-batches-py")
    assert rows["cifar10"]["get"] is None
    assert rows["cifar100"]["path"] is None
    assert rows["mnist"]["get"] == "kdzoo data prepare mnist"


# --- words


def test_a_long_message_is_cut_between_words():
    text = "the weights are not in the cache and the hub cannot be reached"
    for width in range(8, len(text)):
        short = shortened(text, width)
        assert len(short) <= width
        assert text.startswith(short.removesuffix(" …"))
        assert text[len(short.removesuffix(" …"))] == " "
    assert shortened(text, len(text)) == text
    assert shortened("x" * 20, 10) == "x" * 9 + "…"


def test_a_table_keeps_its_columns_where_the_terminal_lacks_a_character():
    assert in_encoding("96.1 ± 0.4 → é", "ascii") == "96.1 +- 0.4 -> ?"
    assert in_encoding("96.1 ± 0.4 → é", "utf-8") == "96.1 ± 0.4 → é"
    code = "from kdzoo.cli.table import Format, print_rows; print_rows([{'a': '1 ± 2', 'b': 'x'}, {'a': '123456', 'b': 'y'}], Format.table)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout.decode("ascii")
    assert [line.rstrip() for line in said.splitlines()] == ["a       b", "1 +- 2  x", "123456  y"]


def test_an_unknown_method_points_to_plugins(kdzoo):
    for words in (["explain", "my_loss"], ["bench", "--methods", "my_loss", "--dry-run"]):
        assert "--plugin FILE" in kdzoo(*words).err


def test_explain_says_the_scale_and_prints_json(kdzoo):
    assert re.search(r"scale +1: with alpha a: L = \(1 - a\) \* CE \+ a \* 1 \* hinton", kdzoo("explain", "hinton").out)
    told = json.loads(kdzoo("explain", "hinton", "--alpha", "0.75", "--json").out)
    assert told["objective"]["task"] == 0.25
    assert told["objective"]["terms"][0]["coefficient"] == 0.75
    assert told["methods"][0]["scale"] == 1.0
    assert told["formula"].startswith("0.25 * CE + 0.75 * ")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(45, "45 s"), (720, "12 min"), (12_600, "3.5 h"), (2877.4 * 3600, "2,877 h (120 days)")],
)
def test_a_time_is_told_in_the_unit_one_thinks_in(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["explain", "hinton", "--alpha", "x"], "--alpha: expected a valid number, got 'x'; see kdzoo explain --help"),
        (["bench", "--tune", "x"], "--tune: expected a valid integer, got 'x'; see kdzoo bench --help"),
        (
            ["leaderboard", "a", "--format", "x"],
            "--format: 'x' is not one of 'table', 'csv', 'md', 'latex', 'json'; see kdzoo leaderboard --help",
        ),
        (["bench", "extra"], "unexpected argument: extra; see kdzoo bench --help"),
        (["bench", "--method", "hinton"], "unknown option --method; did you mean --methods"),
        (["bench", "--ray-address", "auto"], "unknown option --ray-address; did you mean --launcher-option address=VALUE?"),
        (["bench", "--slurm-partition", "gpu"], "unknown option --slurm-partition; did you mean --launcher-option slurm_partition=VALUE?"),
        (["bench", "--alpha", "0.9"], "unknown option --alpha; did you mean --alphas? See kdzoo bench --help"),
        (["run", "x"], "run: unknown 'x'; looked in results and among the teachers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_word_that_cannot_be_read_is_refused_in_plain_english(kdzoo, place, words, problem):
    refused = kdzoo(*words)
    assert (refused.status, refused.out) == (2, "")
    assert f"kdzoo: {problem}" in refused.err
