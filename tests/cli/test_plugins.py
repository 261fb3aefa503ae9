"""Plugins that are edited during a run, have several files, or are installed."""

import pytest

from bench.store import schema
from bench.store.store import Store
from tests.cli.running import ran

MEAN = '''
from pathlib import Path
from registry import model
{imports}

@model("middle", kind="estimator", deterministic=True)
def build(params, task, shape):
    """The mean of the training ages, a bit off."""
    return Middle()

class Middle:
    def fit(self, volumes, targets):
        self.mean = targets.mean() + {off}
        {then}
        return self
    def predict(self, volumes):
        return [self.mean] * len(volumes)
'''
RUN = [
    *("run", "--model", "middle", "--data", "synthetic-age-4mm", "--train-sizes", "16"),
    *("--trials", "0", "--threads", "1", "--workers", "1"),
]


def test_a_plugin_that_is_edited_during_its_run_is_refused(bench, tmp_path):
    edit = "Path(__file__).write_text(Path(__file__).read_text() + '# edited\\n')"
    (tmp_path / "middle.py").write_text(MEAN.format(imports="", off=0, then=edit))
    words = [*RUN, "--plugins", "middle.py", "--seeds", "3"]
    out = ran(bench(*words), code=1)
    assert "1 of 3 trials done" in out
    refused = "the plugin of the model middle was edited during the run"
    assert out.count(f"seed 1: not run: {refused}: {tmp_path / 'middle.py'}") == 1
    assert out.count(f"seed 2: not run: {refused}") == 1
    store = Store.for_reading(tmp_path / "results.db")
    trials, attempts = store.frame(schema.trials), store.frame(schema.attempts)
    store.close()
    assert list(trials["state"]) == ["done"]
    assert sorted(attempts["state"]) == ["done", "killed", "killed"]
    assert "edited during the run" in ran(bench("report"))
    assert "3 to run" in ran(bench(*words, "--dry-run")), "another plugin has keys of its own"


@pytest.mark.parametrize("imports", ["from .offset import OFF", "from . import offset"])
def test_a_neighbour_that_a_plugin_imports_is_part_of_it(bench, tmp_path, imports):
    off = "OFF" if "OFF" in imports else "offset.OFF"
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "middle.py").write_text(MEAN.format(imports=imports, off=off, then=""))
    (tmp_path / "lab" / "offset.py").write_text("OFF = 1\n")
    (tmp_path / "lab" / "unrelated.py").write_text("OFF = 1\n")
    words = [*RUN, "--plugins", "lab/middle.py", "--seeds", "1"]
    assert "1 of 1 trials done" in ran(bench(*words))
    (tmp_path / "lab" / "unrelated.py").write_text("OFF = 2\n")
    assert "1 already stored" in ran(bench(*words, "--dry-run"))
    (tmp_path / "lab" / "offset.py").write_text("OFF = 2\n")
    assert "1 to run" in ran(bench(*words, "--dry-run"))


@pytest.mark.parametrize("how", ["folder", "entry point", "namespace"])
def test_every_file_of_a_package_is_part_of_it(bench, tmp_path, how):
    package = tmp_path / "site" / "lab"
    (package / "deep").mkdir(parents=True)
    if how != "namespace":
        (package / "__init__.py").write_text("from . import middle\n")
        (package / "deep" / "__init__.py").write_text("")
    imports = "from .deep.offset import OFF"
    (package / "middle.py").write_text(MEAN.format(imports=imports, off="OFF", then=""))
    (package / "deep" / "offset.py").write_text("OFF = 1\n")
    words, more = [*RUN, "--seeds", "1"], {}
    if how == "folder":
        words += ["--plugins", "site/lab"]
    else:
        info = tmp_path / "site" / "lab-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[slicebench.plugins]\nlab = lab.middle\n")
        more = {"PYTHONPATH": str(tmp_path / "site")}
    assert "1 of 1 trials done" in ran(bench(*words, **more))
    assert "1 already stored" in ran(bench(*words, "--dry-run", **more))
    (package / "deep" / "offset.py").write_text("OFF = 2\n")
    assert "1 to run" in ran(bench(*words, "--dry-run", **more))
    assert "1 of 1 trials done" in ran(bench(*words, **more))
    store = Store.for_reading(tmp_path / "results.db")
    predictions = store.predictions(store.frame(schema.trials)["key"], "test").values()
    store.close()
    one, two = sorted(found.values[0, 0] for found in predictions)
    assert two - one == pytest.approx(1)
