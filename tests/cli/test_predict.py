"""`bench predict`: saved weights give the predictions of their trial."""

import numpy as np
import pandas as pd
import pytest

from bench.data.cohort import open_cohort
from bench.data.listing import cohort_request
from bench.store.store import Store

RUN = [
    *("run", "--data", "synthetic-ad-4mm", "--model", "slice2d-own,linear-voxels"),
    *("--set", "stride=8", "--set", "block=8", "--train-sizes", "16", "--seeds", "1"),
    *("--trials", "0", "--epochs", "1", "--threads", "1", "--db", "p.db"),
]


@pytest.mark.slow
def test_kept_weights_predict_what_was_stored_and_other_cohorts(bench, tmp_path, cache):
    found = bench(*RUN, "--keep-weights", "best")
    assert found.returncode == 0, found.stdout + found.stderr
    (folder,) = (tmp_path / "p.db.weights").iterdir()
    assert [file.name for file in folder.iterdir()] == ["best.safetensors"]
    found = bench("predict", folder.name[:6], "--data", "synthetic-ad-4mm", "--db", "p.db")
    assert "for 160 subjects of synthetic-ad-4mm" in found.stdout, found.stderr
    predicted = pd.read_csv(tmp_path / "predictions.csv", dtype={"subject_id": str})
    cohort = open_cohort(cohort_request("synthetic-ad-4mm", {}), cache, lambda *_: None)
    store = Store.for_reading(tmp_path / "p.db")
    stored = store.predictions([folder.name], "test")[folder.name]
    store.close()
    ids = [cohort.ids[subject] for subject in stored.subjects]
    again = predicted.set_index("subject_id").loc[ids, "p_AD"].to_numpy()
    # Batches are composed differently, so sums may be rounded differently.
    assert np.allclose(again, stored.values[:, 0], atol=1e-6)
    words = ["--data", "synthetic-null-4mm", "--db", "p.db"]
    found = bench("predict", folder.name, *words, "--out", "null.csv")
    assert found.returncode == 0, found.stderr
    other = pd.read_csv(tmp_path / "null.csv")
    assert other["p_AD"].between(0, 1).all()
    assert len(other) == 160
    for option in ("zscore=brain", "grid=mni-2mm", "crop=brain", "space=native"):
        name = option.partition("=")[0]
        refused = bench("predict", folder.name, "--data-set", option, *words, "--out", "no.csv")
        assert refused.returncode == 2, option
        assert f"these were prepared with {option}" in " ".join(refused.stderr.split())
        assert f"--data-set {name}=" in refused.stderr
    assert not (tmp_path / "no.csv").exists()


EDITED = """
from registry import encoder

@encoder("small", channels=1, min_size=16)
def build(card, pretrained):
    from torch import nn
    return nn.Sequential(nn.Conv2d(1, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_an_edited_plugin_predicts_nothing_with_the_weights_of_before(bench, tmp_path):
    (tmp_path / "small.py").write_text(EDITED)
    plugin = ["--plugins", "small.py"]
    found = bench(
        *("run", "--data", "synthetic-ad-4mm", "--model", "slice2d-scratch", "--encoder", "small"),
        *("--set", "stride=16", "--train-sizes", "16", "--seeds", "1", "--trials", "0"),
        *("--epochs", "1", "--threads", "1", "--db", "p.db", "--keep-weights", "best", *plugin),
    )
    assert found.returncode == 0, found.stdout + found.stderr
    (folder,) = (tmp_path / "p.db.weights").iterdir()
    words = ["predict", folder.name, "--data", "synthetic-ad-4mm", "--db", "p.db", *plugin]
    assert "160 subjects of synthetic-ad-4mm" in bench(*words).stdout
    # The same tensors in another network.
    (tmp_path / "small.py").write_text(EDITED.replace("ReLU", "Tanh"))
    refused = bench(*words)
    assert refused.returncode == 2
    assert "has changed since the trial was trained" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["abc"], "There are no best weights of a trial abc in"),
        (["abc", "--which", "first"], "--which must be best or last, got 'first'"),
        (["abc", "--out", "no/where.csv"], "The directory no does not exist"),
    ],
)
def test_what_is_not_there_is_a_sentence(bench, words, sentence):
    found = bench("predict", *words, "--data", "synthetic-ad-4mm", "--db", "p.db")
    assert found.returncode == 2
    assert sentence in found.stderr
    assert "Traceback" not in found.stderr
