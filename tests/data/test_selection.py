"""Selection and split of scans: groups, given sets, held-out sites, external test cohorts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.choices import choose
from bench.data.listing import CohortRequest, Listing
from bench.data.manifest import tidy
from bench.data.selection import SelectedScans, balance, select_scans
from registry.core import catalogue
from registry.datasets import dataset_options
from registry.errors import UserError


def rows(n: int = 40, **columns) -> pd.DataFrame:
    """Return `n` subjects of two classes, one scan each."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "subject_id": [f"{i:03d}" for i in range(n)],
            "session_id": "1",
            "diagnosis": ["CN", "AD"] * (n // 2),
            "age": rng.uniform(55, 90, n).round(1),
            "sex": rng.choice(["F", "M"], n),
            "site": rng.choice(["A", "B", "C"], n),
        }
    )
    table["path"] = [f"{i}.nii" for i in range(n)]
    return table.assign(**columns)


def listing(table: pd.DataFrame, external: pd.DataFrame | None = None, **options) -> Listing:
    card = catalogue.dataset("table")
    values = {k: card.defaults.get(k, o.default) for k, o in dataset_options(card).items()}
    values |= {"hold_out_site": "", **options}
    request = CohortRequest("mine", card, None, values, "diagnosis")
    scans = choose(tidy(table), values)
    scans["external"] = False
    if external is not None:
        scans = pd.concat([scans, choose(tidy(external), values).assign(external=True)])
        scans = scans.reset_index(drop=True)
    scans["file"] = scans["path"]
    return Listing(request, Path(), scans)


def facts(of: Listing, same: tuple[tuple[str, ...], ...] = (), bad: tuple[str, ...] = ()):
    """Return the facts of scans that are all different, except for those in `same`."""
    paths = of.chosen["path"].tolist()
    alias = {path: group[0] for group in same for path in group}
    return pd.DataFrame(
        {
            "sha256": [alias.get(path, path) for path in paths],
            "remarks": "",
            "blocks": "",
            "affine": "",
            "reason": ["the gzip file is damaged" if path in bad else "" for path in paths],
        },
        index=of.chosen.index,
    )


def selected(table: pd.DataFrame, same=(), bad=(), stored=None, **options) -> SelectedScans:
    found = listing(table, **options)
    return select_scans(found, facts(found, same, bad), stored)


def sides(found: SelectedScans) -> dict[str, str]:
    return found.subjects.set_index("subject_id")["side"].to_dict()


# --- Groups of subjects ---------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_families_and_copies_are_never_on_two_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rows(40)
    table["family"] = [f"f{i}" if i < 12 else "" for i in rng.integers(0, 25, 40)]
    pairs = tuple(
        (f"{a}.nii", f"{b}.nii") for a, b in rng.choice(np.arange(0, 40, 2), (4, 2), replace=False)
    )
    found = sides(selected(table, same=pairs))
    families = set(table["family"]) - {""}
    together = [table.loc[table["family"] == name, "subject_id"] for name in families]
    together += [pd.Series([Path(path).stem.zfill(3) for path in pair]) for pair in pairs]
    for people in together:
        assert len({found[subject] for subject in people if subject in found}) <= 1


def test_an_image_of_two_subjects_is_used_once_with_a_warning() -> None:
    found = selected(rows(), same=(("0.nii", "2.nii"),))
    assert found.scans.set_index("path").loc["2.nii", "reason"] == "copy of another scan"
    assert found.scans.set_index("path").loc["0.nii", "reason"] == ""
    assert "Images that more than one subject has: " in found.warnings[0]
    assert "002" not in sides(found)


def test_an_image_with_two_labels_is_not_used() -> None:
    found = selected(rows(), same=(("0.nii", "1.nii"),))
    reasons = found.scans.set_index("path")["reason"]
    assert reasons["0.nii"] == reasons["1.nii"] == "one image, two labels of diagnosis"
    assert ("left out: one image, two labels of diagnosis", 2) in found.flow


def test_subjects_who_share_an_image_stay_in_one_set() -> None:
    table = pd.concat([rows(), rows().assign(session_id="2", path=lambda t: "later-" + t["path"])])
    for other in range(2, 40, 2):
        found = selected(table, same=(("0.nii", f"{other}.nii"),))
        assert sides(found)["000"] == sides(found)[f"{other:03d}"]


def test_forcing_a_family_apart_is_an_error() -> None:
    table = rows(family=["f", "f", *[""] * 38], split=["train", "test", *["train"] * 38])
    with pytest.raises(UserError, match="'000', '001' must be in the same set"):
        selected(table)


def test_forcing_copies_apart_is_an_error() -> None:
    table = pd.concat([rows(), rows().assign(session_id="2", path=lambda t: "later-" + t["path"])])
    stored = pd.Series({"000": "train", "002": "test"})
    with pytest.raises(UserError, match="must be in the same set"):
        selected(table, same=(("0.nii", "2.nii"),), stored=stored)


def test_forcing_a_subject_onto_two_sides_is_an_error() -> None:
    table = pd.concat([rows(), rows().assign(session_id="2", path=lambda t: "later-" + t["path"])])
    table["split"] = ["train"] * 20 + ["test"] * 20 + ["test"] * 20 + ["train"] * 20
    with pytest.raises(UserError, match="in more than one set"):
        selected(table)


# --- Given sets -----------------------------------------------------------------------------------


def test_an_official_split_is_honoured() -> None:
    official = ["Train", "training", "val", "test"] * 10
    table = rows(split=official).assign(diagnosis=["CN"] * 20 + ["AD"] * 20)
    assert list(sides(selected(table)).values()) == ["train", "train", "validation", "test"] * 10


def test_without_official_validation_set_training_subjects_are_used() -> None:
    official = ["test"] * 12 + ["train"] * 28
    found = list(sides(selected(rows(split=official))).values())
    assert found[:12] == ["test"] * 12
    assert (found[12:].count("train"), found[12:].count("validation")) == (21, 7)


def test_unknown_official_sets_are_listed() -> None:
    with pytest.raises(UserError, match="'holdout'; use one of 'train'"):
        selected(rows(split=["holdout"] * 40))


def test_a_site_is_held_out_with_all_its_subjects() -> None:
    table = pd.concat([rows(), rows(4).assign(session_id="2", site="B", path=list("wxyz"))])
    found = selected(table, hold_out_site="B")
    used = found.used
    assert set(used.loc[used["site"] == "B", "side"]) == {"test"}
    assert "B" not in set(used.loc[used["side"] != "test", "site"])
    assert not set(used.loc[used["side"] == "test", "subject_id"]) & set(
        used.loc[used["side"] != "test", "subject_id"]
    )
    rest = list(used.drop_duplicates("subject_id")["side"])
    assert rest.count("train") / rest.count("validation") == pytest.approx(3, rel=0.4)


def test_an_unknown_site_is_an_error_that_lists_sites() -> None:
    with pytest.raises(UserError, match="choose one of 'A', 'B', 'C'"):
        selected(rows(), hold_out_site="D")


def test_an_external_cohort_is_the_test_set_and_the_split_stays() -> None:
    table = rows()
    other = rows(20).assign(subject_id=[f"other:{i}" for i in range(20)])
    other["path"] = "other-" + other["path"]
    alone = sides(selected(table))
    both = listing(table, external=other)
    found = select_scans(both, facts(both))
    own = {s: side for s, side in sides(found).items() if not s.startswith("other")}
    assert own == {s: side for s, side in alone.items() if side != "test"}
    assert {side for s, side in sides(found).items() if s.startswith("other")} == {"test"}
    assert ("left out: test side of the training cohort", 8) in found.flow


def test_an_external_cohort_that_shares_an_image_is_refused() -> None:
    other = rows(20).assign(subject_id=[f"other:{i}" for i in range(20)])
    other["path"] = "other-" + other["path"]
    both = listing(rows(), external=other)
    with pytest.raises(UserError, match="test cohort share 1 image,"):
        select_scans(both, facts(both, same=(("0.nii", "other-0.nii"),)))


def test_an_external_image_that_was_saved_again_is_refused() -> None:
    other = rows(20).assign(subject_id=[f"other:{i}" for i in range(20)])
    other["path"] = "other-" + other["path"]
    both = listing(rows(), external=other)
    # The hashes of the copies differ, but the means of the blocks do not.
    found = facts(both)
    means = np.random.default_rng(0).uniform(0, 1000, (len(found), 64))
    means[both.chosen["path"] == "other-3.nii"] = means[both.chosen["path"] == "7.nii"]
    found["blocks"] = [" ".join(f"{x:.7g}" for x in sorted(row)) for row in means]
    with pytest.raises(UserError, match=r"test cohort share 1 image,.* '007', 'other:3'"):
        select_scans(both, found)


# --- Remaining ------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_counted_and_not_used() -> None:
    found = selected(rows(), bad=("0.nii", "5.nii"))
    assert dict(found.flow)["left out: the gzip file is damaged"] == 2
    assert not {"0.nii", "5.nii"} & set(found.used["path"])


def test_a_class_that_nobody_is_of_is_named() -> None:
    with pytest.raises(UserError, match="class 'MCI' of 'diagnosis' has 0 subjects"):
        selected(rows(), classes="CN,MCI,AD")


def test_the_balance_counts_every_subject_once() -> None:
    found = selected(rows(200))
    table = balance(found.used, found.task)
    for what, group in table.groupby("what"):
        counts = group[["train", "validation", "test"]].sum()
        assert counts.tolist() == [120, 40, 40], what
        assert group["p"].nunique() == 1
        assert group["p"].iloc[0] > 0.5, what


def test_an_unbalanced_split_has_a_small_p() -> None:
    table = rows(200, split=["train"] * 100 + ["validation"] * 40 + ["test"] * 60)
    table["sex"] = ["F"] * 100 + ["M"] * 100
    found = selected(table)
    assert balance(found.used, found.task).set_index("what").loc["sex", "p"].max() < 1e-6
