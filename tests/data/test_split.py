from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.split import ordered, split, strata, subset, validation_subset
from registry.cards import Task

AGE = Task("age", "regression")
DIAGNOSIS = Task("diagnosis", "classification", ("CN", "AD"))


def people(n: int, task: Task = DIAGNOSIS, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.uniform(50, 90, n) if task is AGE else np.arange(n) % 2
    table = pd.DataFrame({"y": y.astype(float), "sex": rng.choice(["F", "M", ""], n)})
    table["site"] = rng.choice(["A", "B", ""], n)
    table.index = pd.Index([f"{i:05d}" for i in range(n)])
    return table


def sides(table: pd.DataFrame, task: Task = DIAGNOSIS, seed: int = 0, stored=None) -> pd.Series:
    return split(strata(table, task)["fine"], seed, stored)


def counts(found: pd.Series) -> tuple[int, int, int]:
    return tuple(int((found == side).sum()) for side in ("train", "validation", "test"))


# --- Split ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [AGE, DIAGNOSIS])
def test_160_subjects_are_96_32_32(task: Task) -> None:
    assert counts(sides(people(160, task), task)) == (96, 32, 32)


@given(st.integers(10, 300), st.integers(0, 5), st.sampled_from([AGE, DIAGNOSIS]))
def test_every_class_and_the_whole_are_60_20_20_within_one(n: int, seed: int, task: Task) -> None:
    table = people(n, task, seed)
    found = sides(table, task)
    blocks = [found] if task is AGE else [found, found[table["y"] == 0], found[table["y"] == 1]]
    for block in blocks:
        for count, share in zip(counts(block), (0.6, 0.2, 0.2), strict=True):
            assert abs(count - share * len(block)) <= 1


def test_ages_and_sexes_are_balanced_over_the_sides() -> None:
    table = people(500, AGE)
    found = sides(table, AGE)
    means = table["y"].groupby(found).mean()
    assert means.max() - means.min() < 1
    women = (table["sex"] == "F").groupby(found).mean()
    assert women.max() - women.min() < 0.06


@given(st.integers(20, 120), st.data())
def test_removing_one_subject_moves_nobody_else(n: int, data: st.DataObject) -> None:
    table = people(n, AGE)
    before = sides(table, AGE)
    gone = data.draw(st.sampled_from(list(table.index)))
    after = sides(table.drop(gone), AGE, stored=before)
    assert after.equals(before.drop(gone))


@given(st.integers(20, 100), st.integers(1, 60))
def test_new_subjects_fill_what_the_quotas_leave_and_the_others_stay(n: int, new: int) -> None:
    before = sides(people(n))
    table = people(n + new)
    after = sides(table, stored=before)
    assert after[before.index].equals(before)
    for count, share in zip(counts(after), (0.6, 0.2, 0.2), strict=True):
        # Each of the six strata may deviate because of the stored sets.
        assert abs(count - share * len(after)) <= 7


def test_another_seed_is_another_split_and_the_same_seed_the_same() -> None:
    table = people(100)
    assert sides(table, seed=0).equals(sides(table, seed=0))
    assert not sides(table, seed=0).equals(sides(table, seed=1))


def test_the_split_does_not_depend_on_the_order_of_the_manifest() -> None:
    table = people(90)
    shuffled = table.sample(frac=1, random_state=0)
    assert sides(shuffled).sort_index().equals(sides(table).sort_index())


def test_ten_thousand_subjects_split_in_seconds() -> None:
    table = people(10_000, AGE)
    start = time.process_time()
    found = sides(table, AGE)
    subset(list(table.index), strata(table, AGE), 5000, 0)
    assert time.process_time() - start < 5
    assert counts(found) == (6000, 2000, 2000)


# --- Subsets --------------------------------------------------------------------------------------


@given(st.integers(2, 150), st.integers(0, 9), st.data())
def test_subsets_are_nested(n: int, seed: int, data: st.DataObject) -> None:
    table = people(n)
    levels = strata(table, DIAGNOSIS)
    small = data.draw(st.integers(1, n))
    large = data.draw(st.integers(small, n))
    ids = list(table.index)
    chosen = {size: set(subset(ids, levels, size, seed, 1)) for size in (small, large)}
    assert len(chosen[small]) == small
    assert chosen[small] <= chosen[large]


@given(st.integers(0, 200), st.integers(1, 96))
def test_every_prefix_has_the_classes_in_proportion(seed: int, n: int) -> None:
    table = people(96)
    chosen = subset(list(table.index), strata(table, DIAGNOSIS), n, seed)
    assert abs(table["y"].iloc[chosen].sum() - n / 2) <= 1


def test_every_decile_of_age_is_in_a_subset_of_ten() -> None:
    table = people(100, AGE)
    levels = strata(table, AGE)
    chosen = subset(list(table.index), levels, 10, seed=3)
    assert len(set(levels["label"].iloc[chosen])) >= 8


def test_a_rare_class_is_in_the_smallest_subset_when_it_leads() -> None:
    table = people(100)
    table["y"] = ([1.0] * 3 + [0.0] * 97)[::-1]
    levels = strata(table, DIAGNOSIS)
    for seed in range(20):
        chosen = subset(list(table.index), levels, 2, seed, lead=1)
        assert sorted(table["y"].iloc[chosen]) == [0, 1]


def test_the_order_is_known_by_heart() -> None:
    """Stored results depend on these subsets; changing them needs a new version of the split."""
    table = people(10)
    found = ordered(list(table.index), strata(table, DIAGNOSIS), 7).tolist()
    assert found == [7, 8, 9, 6, 3, 4, 1, 0, 5, 2]
    letters = "".join(side[1] for side in sides(table))  # tRain, vAlidation, tEst
    assert letters == "rrrraareer"


@pytest.mark.parametrize("n", [0, 11])
def test_a_subset_that_does_not_exist_is_an_error(n: int) -> None:
    table = people(10)
    with pytest.raises(ValueError, match="between 1 and 10"):
        subset(list(table.index), strata(table, DIAGNOSIS), n, 0)


@given(st.integers(1, 96), st.integers(0, 20))
def test_validation_is_a_third_at_least_eight_and_two_a_class(n_train: int, seed: int) -> None:
    table = people(32)
    table["y"] = [1.0] * 3 + [0.0] * 29
    levels = strata(table, DIAGNOSIS)
    ids = list(table.index)

    def chosen(size: int, full: bool = False) -> np.ndarray:
        return validation_subset(ids, levels, size, seed, classes=2, full=full)

    found = chosen(n_train)
    assert len(found) == max(8, -(-n_train // 3))
    assert min((table["y"].iloc[found] == label).sum() for label in (0, 1)) >= 2
    assert set(found) <= set(chosen(96))
    assert len(chosen(96)) == len(chosen(n_train, full=True)) == 32
