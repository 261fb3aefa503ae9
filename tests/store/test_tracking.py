"""TensorBoard and MLflow show what the database holds, as read by their own libraries."""

import shutil

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.store import schema
from bench.store.store import Store
from bench.store.tracking import open_tracker, track, track_all
from registry.errors import UserError
from tests.store.conftest import make_arm, make_trial


@pytest.fixture
def keys(store):
    """The keys of two stored trials."""
    arm = make_arm()
    command = store.add_command(["bench"], [(arm, False)], sizes={}, seeds=[0], dropped=[])
    trials = [make_trial(arm, seed) for seed in (0, 1)]
    for trial in trials:
        store.add_trial(trial, command)
    return [trial.spec.key for trial in trials]


def read_events(folder):
    """Return the scalars and the settings of each run in a directory of TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {}
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run)).Reload()
        scalars = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }
        (content,) = events.PluginTagToContent("hparams").values()
        started = HParamsPluginData.FromString(content).session_start_info
        params = {
            name: getattr(value, value.WhichOneof("kind"))
            for name, value in started.hparams.items()
        }
        found[run.name] = (scalars, params)
    return found


def test_tensorboard_shows_history_metrics_and_settings(store, keys, tmp_path):
    folder = tmp_path / "boards" / "runs"
    tracker = open_tracker(f"tensorboard={folder}")
    assert track_all(store, [tracker]) == []
    found = read_events(folder)
    assert list(found) == [f"m n=4 seed {seed} {keys[seed]}" for seed in (0, 1)]
    scalars, params = found[f"m n=4 seed 1 {keys[1]}"]
    assert scalars == {
        "history/train_loss": [(1, 1.0)],
        "history/validation": [(1, 2.0)],
        "history/seconds": [(1, pytest.approx(0.1))],
        # The metric that is undefined for this trial is left out.
        "test/mae": [(1, 0.375)],
        "seconds": [(1, 1.5)],
    }
    assert params == {
        **{"key": keys[1], "model": "m", "n_train": 4, "seed": 1},
        **{"precision": "fp32", "tuned": False, "lr": 0.1},
    }
    assert track(store, keys[1], [tracker]) == []
    assert read_events(folder) == found


def test_mlflow_shows_history_metrics_and_settings(store, keys, tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = open_tracker(f"mlflow={uri}")
    # Copied again, the runs are not doubled.
    for _ in range(2):
        assert track_all(store, [tracker]) == []
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("cohort, age")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["m n=4 seed 0", "m n=4 seed 1"]
    run = runs["m n=4 seed 0"]
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 1500
    assert run.data.tags["bench_key"] == keys[0]
    assert run.data.params == {
        **{"model": "m", "n_train": "4", "seed": "0"},
        **{"precision": "fp32", "tuned": "False", "lr": "0.1"},
    }
    assert run.data.metrics == {
        **{"history/train_loss": 1.0, "history/validation": 2.0, "history/seconds": 0.1},
        **{"test/mae": 0.375, "seconds": 1.5},
    }
    (point,) = client.get_metric_history(run.info.run_id, "history/validation")
    assert (point.step, point.value) == (1, 2.0)


def test_a_tracker_that_fails_is_a_warning_and_is_not_used_again(store, keys, tmp_path):
    folder = tmp_path / "runs"
    trackers = [open_tracker(f"tensorboard={folder}")]
    shutil.rmtree(folder)
    folder.write_text("a file where the directory was")
    (problem,) = track_all(store, trackers)
    assert problem.startswith(f"trial {keys[0]} is stored, but it could not be copied to Tensor")
    assert "bench db mirror --track" in problem
    assert trackers == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tensorboard", "--track must be tensorboard=DIR or mlflow=URI, got 'tensorboard'"),
        ("wandb=x", "--track must be tensorboard=DIR or mlflow=URI, got 'wandb=x'"),
        ("tensorboard=/dev/null/x", "choose another directory"),
        ("mlflow=nonsense://me:secret@host/x", r"me:\*\*\*@host/x cannot be used"),
    ],
)
def test_a_place_that_cannot_be_used_is_a_sentence(text, words):
    with pytest.raises(UserError, match=words) as error:
        open_tracker(text)
    assert "secret" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["tensorboard=x", "mlflow=sqlite:///x.db"])
def test_a_missing_package_is_a_sentence(text, monkeypatch):
    monkeypatch.setattr("bench.store.tracking.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'slicebench\[tracking\]'"):
        open_tracker(text)


def test_finished_trials_are_copied_later(store, keys, tmp_path):
    store.close()
    words = ["db", "mirror", "--db", store.database, "--track", f"tensorboard={tmp_path / 'runs'}"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert f"All finished trials were copied to TensorBoard's directory {tmp_path}" in done.output
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_run_is_tracked_and_not_doubled(bench, tmp_path):
    words = ["run", "--data", "synthetic-ad-4mm", "--model", "slice2d-own,prior", "--epochs", "2"]
    words += ["--set", "stride=8", "--train-sizes", "16", "--seeds", "1", "--trials", "0"]
    words += ["--threads", "1", "--db", "x.db", "--track", "tensorboard=runs"]
    for _ in range(2):
        done = bench(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        found = read_events(tmp_path / "runs")
        assert [name.rpartition(" ")[0] for name in found] == [
            "prior n=16 seed 0",
            "slice2d-own [own] n=16 seed 0",
        ]
    scalars, params = list(found.values())[1]
    assert [step for step, _ in scalars["history/validation"]] == [1, 2]
    assert params["encoder"] == "own"
    store = Store.for_reading(tmp_path / "x.db")
    metrics = store.frame(schema.metrics).dropna(subset="value")
    store.close()
    for row in metrics[metrics["trial"] == params["key"]].itertuples():
        assert scalars[f"{row.split}/{row.metric}"][0][1] == pytest.approx(row.value, rel=1e-6)
    assert len(metrics)
    refused = bench(*words[:-1], "tensorbord=runs")
    assert refused.returncode == 2
    assert "Error: --track must be tensorboard=DIR or mlflow=URI" in refused.stderr
