"""Help pages, the version, and shared options."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import typer.main
from typer.testing import CliRunner

from bench.cli import app
from bench.cli.run import EXAMPLES

GROUPS = ["What to compare", "Data", "Training", "Analysis", "Execution", "Output", "Options"]
ROOT = typer.main.get_command(app)


def commands(command=ROOT, words=()):
    """Return all commands that are not groups, with their names."""
    below = getattr(command, "commands", None)
    if below is None:
        return [(words, command)]
    return [each for name, one in below.items() for each in commands(one, (*words, name))]


def help_of(*words):
    done = CliRunner().invoke(app, [*words, "--help"], terminal_width=78)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_help_of_run_is_in_groups():
    text = help_of("run")
    assert re.findall(r"^(\S.*):$", text, re.M) == GROUPS
    options = text[text.index("Options:") : text.index("Examples:")].splitlines()
    assert [line.split()[0] for line in options[1:] if line.strip()] == ["--help"]
    assert "--skull-strip" not in text
    assert "--allow-pretraining-overlap" not in text


def test_every_option_says_what_it_takes():
    options = [
        (words, param)
        for words, command in commands()
        for param in command.params
        if param.param_type_name == "option" and not param.is_flag
    ]
    assert len(options) > 100
    for words, param in options:
        assert param.help, (words, param.name)
        assert param.metavar, f"{param.name} of {words} would show its Python type"


def test_the_examples_are_read_by_the_command():
    lines = EXAMPLES.replace("\\\n", " ").splitlines()
    examples = [shlex.split(line) for line in lines if line.strip().startswith("bench run")]
    assert len(examples) == 3
    for words in examples:
        with ROOT.commands["run"].make_context("run", words[2:]) as context:
            assert context.params["model"]
        assert " ".join(words[:3]) in help_of("run")


def test_every_command_that_reads_a_dataset_has_all_of_its_options():
    found = {
        words: {param.name: (param.opts, param.help, param.metavar) for param in command.params}
        for words, command in commands()
    }
    readers = [
        ("run",),
        ("predict",),
        *[("data", name) for name in ("check", "manifest", "prepare", "preview")],
    ]
    shared = set.intersection(*[set(found[words]) for words in readers])
    assert {"root", "table", "data_set", "withdrawals", "hold_out_site", "skull_strip"} <= shared
    for name in shared - {"out", "workers"}:
        assert len({str(found[words][name]) for words in readers}) == 1, name


def test_the_version_is_that_of_the_package():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"slicebench {version('slicebench')}\n")


def test_no_summary_of_a_command_is_cut_off():
    groups = [(), ("data",), ("list",), ("weights",), ("db",)]
    assert not [
        line
        for group in groups
        for line in help_of(*group).splitlines()
        if "..." in line[7:] and not line.startswith("Usage")
    ]


def test_show_prints_the_beginning_of_a_long_list_and_all_of_it_on_request():
    short, whole = [
        CliRunner().invoke(app, ["show", "cnn3d", *more]).output for more in ([], ["--all"])
    ]
    assert "noise" not in short
    assert (
        short.count("\n")
        == whole.count("\n")
        - int(re.search(r"(\d+) more settings are listed by `bench show cnn3d --all`", short)[1])
        + 2
    )
    assert "noise" in whole
    assert "more settings" not in whole
    # Options of the model itself and tuned options come first.
    assert short.index("\ndropout") < short.index("\nlr") < short.index("\nepochs")
    assert "1e-05 to 0.01, on a log scale" in short


def test_completion_can_be_installed(tmp_path, bench, environment):
    def complete(line):
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return bench(_BENCH_COMPLETE="complete_bash", **words).stdout.split()

    assert complete("bench run --tr") == ["--train-sizes", "--trials", "--track"]
    assert complete("bench run --model prior,cnn") == ["prior,cnn3d"]
    assert complete("bench show ixi") == ["ixi"]
    # The shell is detected from the parent processes, which must include bash.
    done = subprocess.run(
        ["bash", "-c", f"{shlex.quote(sys.executable)} -m bench --install-completion; true"],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "installed" in done.stdout
    assert "_bench_completion" in (tmp_path / ".bash_completions" / "bench.sh").read_text()
