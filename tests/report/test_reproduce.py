"""The command that reproduces a trial, as parsed by the command line."""

import shlex

import typer.main
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import app
from bench.cli.parsing import parse_names, parse_pairs, parse_seeds, parse_sizes
from bench.report.reproduce import reproduce_command
from bench.spec import Arm, Component
from registry.cards import Task
from registry.models import MODELS, model_options

RUN = typer.main.get_command(app).commands["run"]
CARDS = {card.name: card for card in MODELS}


def arm(model="slice2d-scratch", encoder=None, plugin="", **changes):
    card = CARDS.get(model)
    options = model_options(card) if card else {}
    fields = {
        "model": Component(model, 1, plugin),
        "encoder": Component(encoder, 1) if encoder else None,
        "fingerprint": "0" * 16,
        "task": Task("diagnosis", "classification", ("CN", "AD")),
        "params": {name: each.default for name, each in options.items() if not each.later},
        "space": {},
        "trials": None,
        "tune": None,
        "precision": "fp32",
    }
    return Arm(**{**fields, **changes})


def parsed(command):
    """Return the parameters with which a command would call `bench run`."""
    words = shlex.split(command)
    assert words[:2] == ["bench", "run"]
    with RUN.make_context("run", words[2:]) as context:
        return context.params


def again(argv, chosen, n_train=24, seed=3, dataset="cohort", threads=None):
    return parsed(reproduce_command(argv, chosen, dataset, n_train, seed, threads))


def test_a_command_in_any_spelling_is_reduced_to_one_trial():
    argv = [
        *("bench", "run", "--model=cnn3d,slice2d-scratch", "--model", "prior", "--data", "a,b"),
        *("--data=c", "--encoder", "resnet18", "--encoder=own", "--seeds", "5", "--db=x y.db"),
        *("--train-sizes", "24,all", "--reuse", "no", "--dry-run", "--new-split", "--trials=0"),
        *("--root", "/a b/it's", "--table", "one.csv", "--table=two.csv", "--deterministic"),
    ]
    found = again(argv, arm(encoder="resnet18"), dataset="b")
    assert found["model"] == ["slice2d-scratch"]
    assert found["data"] == ["b"]
    assert found["encoder"] == ["resnet18"]
    assert parse_seeds(found["seeds"]) == [3]
    assert parse_sizes(found["train_sizes"]) == [24]
    assert found["db"] == "reproduced.db"
    assert found["reuse"] == "yes"
    assert not found["dry_run"]
    assert not found["new_split"]
    assert found["trials"] == 0
    assert str(found["root"]) == "/a b/it's"
    assert list(map(str, found["table"])) == ["one.csv", "two.csv"]
    assert found["deterministic"]


def test_seeds_0_and_1_are_not_taken_for_numbers_of_seeds():
    for seed in (0, 1, 7):
        found = again(["bench", "run", "--model", "prior", "--data", "a"], arm("prior"), seed=seed)
        assert parse_seeds(found["seeds"]) == [seed]


def test_the_only_cohort_keeps_the_name_of_its_command():
    # The database contains the latest name of a cohort.
    argv = ["bench", "run", "--model", "prior", "--data", "mine"]
    assert again(argv, arm("prior"), dataset="renamed")["data"] == ["mine"]


def test_settings_of_other_models_are_dropped():
    argv = [
        *("bench", "run", "--model", "linear-voxels,cnn3d", "--data", "a", "--epochs", "2"),
        *("--set", "n_components=3", "--set=lr=0.1", "--set", "flip=false"),
    ]
    linear = again(argv, arm("linear-voxels", precision=None))
    assert parse_pairs("--set", linear["set_"]) == {"n_components": "3"}
    assert linear["epochs"] is None
    network = again(argv, arm("cnn3d"))
    # The option flip was added later, so it is on the card but not among stored params.
    assert parse_pairs("--set", network["set_"]) == {"lr": "0.1", "flip": "false"}
    assert network["epochs"] == 2


def test_a_plugin_has_the_settings_of_its_spec():
    argv = [
        *("bench", "run", "--model", "mine", "--data", "a", "--plugins", "mine.py"),
        *("--set", "width=3", "--set", "depth=2", "--set", "lr=1"),
    ]
    mine = arm(
        "mine",
        plugin="f" * 64,
        params={"width": 3},
        space={"depth": {}},
    )
    found = again(argv, mine)
    assert parse_pairs("--set", found["set_"]) == {"width": "3", "depth": "2"}
    assert list(map(str, found["plugins"])) == ["mine.py"]


def test_an_encoder_is_given_only_to_models_that_accept_one():
    argv = [
        "bench",
        "run",
        "--model",
        "slice2d-own,prior",
        "--data",
        "a",
        "--encoder",
        "own,resnet18",
    ]
    assert not again(argv, arm("slice2d-own", encoder="own"))["encoder"]
    assert not again(argv, arm("prior"))["encoder"]
    assert again(argv, arm("slice2d-scratch", encoder="own"))["encoder"] == ["own"]
    without = ["bench", "run", "--model", "slice2d-scratch", "--data", "a"]
    assert not again(without, arm(encoder="resnet18"))["encoder"]


def test_precision_and_threads_are_those_of_the_run():
    argv = ["bench", "run", "--model", "cnn3d", "--data", "a", "--precision", "auto"]
    assert again(argv, arm("cnn3d", precision="bf16"))["precision"] == "bf16"
    assert again(argv, arm("cnn3d"), threads=4)["threads"] == 4
    assert again([*argv, "--threads", "2"], arm("cnn3d"), threads=4)["threads"] == 2
    assert again([*argv, "--threads=2"], arm("cnn3d"), threads=4)["threads"] == 2


def test_the_primary_analysis_is_not_part_of_the_command():
    argv = [
        *("bench", "run", "--model", "cnn3d,prior", "--data", "a", "--reference", "prior"),
        *("--metric=auc", "--primary-size", "48", "--margin", "0.1"),
    ]
    found = again(argv, arm("cnn3d"))
    assert {found[name] for name in ("reference", "metric", "primary_size", "margin")} == {None}


VALUED = {
    "--model": "cnn3d,prior",
    "--data": "a,cohort",
    "--encoder": "resnet18",
    "--seeds": "5",
    "--train-sizes": "12,all",
    "--trials": "4",
    "--set": "lr=0.5",
    "--db": "a.db",
    "--reuse": "no",
    "--root": "a folder/$HOME",
    "--tune": "per-seed",
    "--threads": "2",
    "--weights": "resnet18=a b.pth",
}
FLAGS = ("--dry-run", "--new-split", "--deterministic", "--allow-pretraining-overlap")


@given(st.permutations([*VALUED, *FLAGS]), st.sets(st.sampled_from([*VALUED, *FLAGS])), st.data())
def test_any_order_and_spelling_gives_the_same_trial(order, chosen, data):
    argv = ["bench", "run"]
    for option in order:
        if option not in chosen:
            continue
        if option in FLAGS:
            argv.append(option)
        elif data.draw(st.booleans()):
            argv += [option, VALUED[option]]
        else:
            argv.append(f"{option}={VALUED[option]}")
    found = again(argv, arm("cnn3d"), n_train=12, seed=1)
    assert parse_names(found["model"]) == ["cnn3d"]
    assert parse_names(found["data"]) == ["cohort"]
    assert parse_seeds(found["seeds"]) == [1]
    assert parse_sizes(found["train_sizes"]) == [12]
    assert found["db"] == "reproduced.db"
    assert not found["encoder"]
    assert list(found["set_"] or []) == (["lr=0.5"] if "--set" in chosen else [])
    assert list(found["weights"] or []) == (["resnet18=a b.pth"] if "--weights" in chosen else [])
    assert str(found["root"]) == ("a folder/$HOME" if "--root" in chosen else "None")
    assert found["tune"] == ("per-seed" if "--tune" in chosen else "shared")
    assert found["deterministic"] == ("--deterministic" in chosen)
    assert found["allow_overlap"] == ("--allow-pretraining-overlap" in chosen)
