"""optuna-dashboard shows finished studies of both kinds of databases."""

import json
import threading
from contextlib import contextmanager
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optuna_dashboard
import pytest
from optuna.storages import RDBStorage

from bench.store.database import find_database, optuna_url
from bench.store.merge import copy
from bench.store.mirror import mirror_all
from bench.store.store import Store
from tests.store.conftest import make_arm, make_study


class Quiet(WSGIRequestHandler):
    def log_message(self, *words):
        pass


@contextmanager
def dashboard(database):
    """Serve the dashboard of a database, and return a function that reads a page."""
    storage = RDBStorage(optuna_url(database))
    with make_server("127.0.0.1", 0, optuna_dashboard.wsgi(storage), handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def read(path):
            with urlopen(f"http://127.0.0.1:{server.server_port}{path}", timeout=60) as answer:
                return answer.read().decode()

        try:
            yield read
        finally:
            server.shutdown()
            thread.join()
            storage.engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_dashboard_shows_studies_and_their_trials(store, kind, request):
    arm = make_arm(trials=2)
    store.add_command(["bench"], [(arm, False)], sizes={}, seeds=[0], dropped=[])
    store.add_study(make_study(arm))
    shown = store
    if kind == "postgresql":
        shown = Store.for_writing(find_database(request.getfixturevalue("server_database")))
        copy(shown, store)
    assert mirror_all(shown) == []
    with dashboard(shown.database) as read:
        assert "<title>Optuna Dashboard</title>" in read("/dashboard/")
        (study,) = json.loads(read("/api/studies"))["study_summaries"]
        assert study["study_name"] == (
            f"m on cohort, age, n=4, all seeds ({make_study(arm).spec.key})"
        )
        assert study["directions"] == ["minimize"]
        trials = json.loads(read(f"/api/studies/{study['study_id']}"))["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Fail"]
    assert trials[0]["values"] == [1.0]
    assert [(p["name"], float(p["param_internal_value"])) for p in trials[0]["params"]] == [
        ("lr", 0.1)
    ]
    assert [point["value"] for point in trials[0]["intermediate_values"]] == [1.5, 1.0]
    if shown is not store:
        shown.close()
