import numpy as np
import optuna
import pytest

from bench.store import schema
from bench.store.database import find_database, optuna_url
from bench.store.mirror import mirror_all, mirror_study
from bench.store.store import Store
from registry.errors import UserError
from tests.store.conftest import FINGERPRINT, make_arm, make_study, make_trial


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """Every test runs on SQLite and on a PostgreSQL server."""
    if request.param == "sqlite":
        return tmp_path / "store.db"
    return find_database(request.getfixturevalue("server_database"))


def command(store, *arms):
    return store.add_command(
        ["bench", "run"], [(a, False) for a in arms], sizes={}, seeds=[0], dropped=[]
    )


def test_a_trial_comes_back_as_it_was_stored(store):
    arm = make_arm()
    trial = make_trial(arm, seed=3)
    store.add_trial(trial, command(store, arm))
    row = store.frame(schema.trials).iloc[0]
    assert (row["key"], row["seed"], row["state"]) == (trial.spec.key, 3, "done")
    assert row["params"] == {"lr": 0.1}
    assert row["finished"].utcoffset().total_seconds() == 0
    found = store.predictions([trial.spec.key], "test")[trial.spec.key]
    np.testing.assert_array_equal(found.values, trial.predictions["test"].values)
    np.testing.assert_array_equal(found.subjects, [0, 1])
    metrics = store.frame(schema.metrics).set_index("metric")
    assert metrics.loc["mae", "value"] == 0.375
    assert np.isnan(metrics.loc["r2", "value"])
    assert metrics.loc["r2", "reason"] == "constant"
    assert len(store.frame(schema.history)) == 1


def test_storing_twice_changes_nothing(store):
    arm = make_arm()
    number = command(store, arm)
    store.add_trial(make_trial(arm), number)
    store.add_trial(make_trial(arm), number)
    for table in (schema.trials, schema.predictions, schema.history, schema.environments):
        assert len(store.frame(table)) == 1


def test_a_failure_gives_way_to_a_success_and_never_the_other_way(store):
    arm = make_arm()
    number = command(store, arm)
    store.add_trial(make_trial(arm, state="failed", error="diverged"), number)
    store.add_trial(make_trial(arm), number)
    store.add_trial(make_trial(arm, state="failed", error="diverged"), number)
    assert list(store.frame(schema.trials)["state"]) == ["done"]


def test_one_key_has_one_result(store):
    arm = make_arm()
    number = command(store, arm)
    store.add_trial(make_trial(arm), number)
    with pytest.raises(UserError, match="other settings"):
        store.add_trial(make_trial(arm, lr=0.2), number)
    store.add_trial(make_trial(arm, lr=0.2), number, replace=True)
    assert store.frame(schema.trials).iloc[0]["params"] == {"lr": 0.2}


def test_a_study_has_one_best_setting(store):
    arm = make_arm(trials=2)
    command(store, arm)
    store.add_study(make_study(arm))
    store.add_study(make_study(arm))
    assert len(store.frame(schema.tuning_trials)) == 2
    assert store.best_params(make_study(arm).spec.key) == {"lr": 0.1}
    with pytest.raises(UserError, match="other tuned settings"):
        store.add_study(make_study(arm, best={"lr": 0.5}))


def test_a_trial_of_an_unknown_arm_is_refused_by_the_database(store):
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        store.add_trial(make_trial(make_arm("stranger")), 1)


def test_the_mirror_shows_the_study_to_optuna_and_can_be_made_again(store):
    arm = make_arm(trials=2)
    command(store, arm)
    store.add_study(make_study(arm))
    key = make_study(arm).spec.key
    assert mirror_study(store, key) == ""
    assert mirror_all(store) == []
    url = optuna_url(store.database)
    name = f"m on cohort, age, n=4, all seeds ({key})"
    assert optuna.get_all_study_names(url) == [name]
    study = optuna.load_study(study_name=name, storage=url)
    assert study.best_params == {"lr": 0.1}
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL"]
    assert study.trials[0].intermediate_values == {1: 1.5, 2: 1.0}


def test_a_study_mirrored_under_its_key_is_mirrored_under_a_name(store):
    arm = make_arm(trials=2)
    command(store, arm)
    store.add_study(make_study(arm))
    key = make_study(arm).spec.key
    url = optuna_url(store.database)
    optuna.create_study(study_name=key, storage=url)
    optuna.create_study(study_name="somebody's own", storage=url)
    assert mirror_all(store) == []
    names = {f"m on cohort, age, n=4, all seeds ({key})", "somebody's own"}
    assert set(optuna.get_all_study_names(url)) == names


def test_a_mirror_that_fails_is_a_warning_with_its_remedy(store):
    arm = make_arm(trials=2)
    command(store, arm)
    store.add_study(make_study(arm))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE studies (other INTEGER)")
    problem = mirror_study(store, make_study(arm).spec.key)
    assert "bench db mirror" in problem
    assert store.best_params(make_study(arm).spec.key) == {"lr": 0.1}


def test_the_threads_of_an_arm_are_those_it_began_with_on_this_machine(store):
    arm = make_arm()
    store.add_trial(make_trial(arm), command(store, arm))
    assert store.threads_of(arm.key, "here") == 2
    assert store.threads_of(arm.key, "elsewhere") is None


def test_a_command_of_the_same_arm_does_not_double_it(store):
    arm = make_arm()
    assert command(store, arm) + 1 == command(store, arm)
    assert list(store.frame(schema.arms)["key"]) == [arm.key]
    assert list(store.frame(schema.datasets)["fingerprint"]) == [FINGERPRINT]


def test_readers_see_what_is_committed_while_the_driver_writes(store):
    arm = make_arm()
    number = command(store, arm)
    reader = Store.for_reading(store.database)
    assert len(reader.frame(schema.trials)) == 0
    store.add_trial(make_trial(arm), number)
    assert len(reader.frame(schema.trials)) == 1
    reader.close()


def test_a_study_that_is_replaced_takes_the_trials_that_it_tuned_along(store):
    arm = make_arm(trials=2)
    command = store.add_command(["bench"], [(arm, False)], sizes={}, seeds=[0], dropped=[])
    study = make_study(arm)
    store.add_study(study)
    trials = [make_trial(arm, seed, study=study.spec.key) for seed in (0, 1)]
    for trial in trials:
        store.add_trial(trial, command)
    assert store.add_study(study, replace=True) == []
    assert len(store.frame(schema.trials)) == 2
    removed = store.add_study(make_study(arm, best={"lr": 0.5}), replace=True)
    assert set(removed) == {trial.spec.key for trial in trials}
    assert store.frame(schema.trials).empty
    assert store.frame(schema.predictions).empty
