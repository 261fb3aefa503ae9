from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from bench.data.synthetic import COHORTS, Spec, files, materialise, people, write_cohort
from bench.data.synthetic.grid import ORIGIN
from bench.data.synthetic.image import volume
from bench.data.synthetic.people import SITES, Traits, image_traits, labels
from bench.data.synthetic.template import HIPPOCAMPUS
from registry.errors import UserError

pytestmark = pytest.mark.slow

AD = Spec("test-ad", "ad", voxel_mm=4, n_subjects=8, seed=7)
NULL = Spec("test-null", "null", voxel_mm=4, n_subjects=8, seed=7)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def box(voxel_mm: int, low: tuple[int, ...], high: tuple[int, ...]) -> tuple[slice, ...]:
    corners = ((np.array(corner) - ORIGIN) // voxel_mm for corner in (low, high))
    return tuple(slice(int(a), int(b)) for a, b in zip(*corners, strict=True))


def fluid_cm3(counts: np.ndarray, voxel_mm: int) -> float:
    """Volume of dark voxels around the lateral ventricles."""
    centre = counts[box(voxel_mm, (-30, -48, -2), (30, 34, 34))]
    return float(((centre > 0) & (centre < 90)).sum() * voxel_mm**3 / 1000)


def hippocampal_mean(counts: np.ndarray, voxel_mm: int, side: int) -> float:
    (x, y, z), (a, b, c) = HIPPOCAMPUS
    low, high = (x * side - a / 2, y - b / 2, z - c / 2), (x * side + a / 2, y + b / 2, z + c / 2)
    return float(counts[box(voxel_mm, low, high)].mean())


# --- Labels -------------------------------------------------------------------------------------


def test_every_4mm_cohort_has_160_subjects_and_its_2mm_twin() -> None:
    assert {name for name, spec in COHORTS.items() if spec.voxel_mm == 4} == {
        "synthetic-ad-4mm",
        "synthetic-age-4mm",
        "synthetic-null-4mm",
    }
    for name, spec in COHORTS.items():
        assert spec.name == name
        if spec.voxel_mm == 4:
            assert spec.n_subjects == 160
            assert replace(COHORTS[name.removesuffix("-4mm")], voxel_mm=4).kind == spec.kind


@given(st.sampled_from(["ad", "null"]), st.integers(0, 2**31), st.integers(1, 40))
def test_ad_and_cn_are_matched_pairs(kind: str, seed: int, pairs: int) -> None:
    spec = Spec("test", kind, 4, 2 * pairs, seed)
    for pair in range(pairs):
        one, other = labels(spec, 2 * pair), labels(spec, 2 * pair + 1)
        assert {one.diagnosis, other.diagnosis} == {"AD", "CN"}
        assert (one.sex, one.site) == (other.sex, other.site)
        assert abs(one.age - other.age) <= 2.01
        assert 60 <= min(one.age, other.age) <= max(one.age, other.age) <= 85


@given(st.integers(0, 2**31), st.integers(0, 500))
def test_the_age_cohort_is_healthy_and_45_to_80(seed: int, subject: int) -> None:
    who = labels(Spec("test", "age", 4, 501, seed), subject)
    assert who.diagnosis == "CN"
    assert 45 <= who.age <= 80


def test_ages_fill_their_range() -> None:
    ages = [labels(COHORTS["synthetic-age"], i).age for i in range(400)]
    quarters, _ = np.histogram(ages, bins=4, range=(45, 80))
    assert quarters.min() > 70


@pytest.mark.parametrize("name", sorted(COHORTS))
def test_sites_see_both_sexes_and_diagnoses_equally(name: str) -> None:
    frame = pd.DataFrame([vars(labels(COHORTS[name], i)) for i in range(144)])
    for column in ("sex", "diagnosis"):
        table = pd.crosstab(frame["site"], frame[column])
        assert table.shape[0] == len(SITES)
        assert (table.nunique() == 1).all()
    assert frame.groupby("site")["age"].mean().std() < 3


def test_the_order_of_subjects_does_not_tell_the_diagnosis() -> None:
    first = [labels(COHORTS["synthetic-ad"], 2 * pair).diagnosis for pair in range(200)]
    assert 70 < first.count("AD") < 130


# --- The null cohort ------------------------------------------------------------------------------


def flipped(spec: Spec, subject: int) -> Traits:
    who = labels(spec, subject)
    return Traits(
        age=145 - who.age,
        sex="F" if who.sex == "M" else "M",
        diagnosis="AD" if who.diagnosis == "CN" else "CN",
        site=who.site,
    )


def test_changing_every_label_leaves_the_null_images_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {spec.kind: contents(write_cohort(spec, tmp_path / "a")) for spec in (AD, NULL)}
    for module in (people, files):
        monkeypatch.setattr(module, "labels", flipped)
    after = {spec.kind: contents(write_cohort(spec, tmp_path / "b")) for spec in (AD, NULL)}
    scans = [name for name in before["null"] if name.endswith(".nii.gz")]
    assert len(scans) == 8
    assert before["null"]["participants.tsv"] != after["null"]["participants.tsv"]
    assert all(before["null"][scan] == after["null"][scan] for scan in scans)
    assert not any(before["ad"][scan] == after["ad"][scan] for scan in scans)


def test_hidden_traits_of_the_null_twin_are_unrelated_to_its_labels() -> None:
    spec = replace(COHORTS["synthetic-null"], n_subjects=2000)
    written = pd.DataFrame([vars(labels(spec, i)) for i in range(2000)])
    hidden = pd.DataFrame([vars(image_traits(spec, i)) for i in range(2000)])
    numbers = [
        frame.assign(sex=frame["sex"] == "M", diagnosis=frame["diagnosis"] == "AD")[
            ["age", "sex", "diagnosis"]
        ].to_numpy(float)
        for frame in (written, hidden)
    ]
    across = np.corrcoef(np.hstack(numbers).T)[:3, 3:]
    assert np.abs(across).max() < 3.5 / np.sqrt(2000)
    assert (written["site"] == hidden["site"]).all()


# --- Images --------------------------------------------------------------------------------------


def test_ventricles_grow_by_the_stated_ratio() -> None:
    young, old = (
        fluid_cm3(volume(replace(AD, voxel_mm=2), 0, Traits(age, "F", "CN", "C"), variability=0), 2)
        for age in (45.0, 80.0)
    )
    template_cm3 = 17.8
    head = 1.11**-0.5
    # Partial volume effects hide the rim of the ventricles, hence the wide tolerance.
    assert 0.65 < (old - young) / ((1.025**35 - 1) * template_cm3 * head) < 1.05


def test_ventricular_volume_rises_with_age_among_different_people() -> None:
    ages = np.linspace(45, 80, 24)
    fluid = [
        fluid_cm3(volume(AD, i, Traits(float(age), "FM"[i % 2], "CN", "B")), 4)
        for i, age in enumerate(ages)
    ]
    assert spearmanr(ages, fluid).statistic > 0.5


def test_disease_darkens_both_hippocampi_of_every_subject() -> None:
    for subject in range(4):
        well, ill = (volume(AD, subject, Traits(72.0, "F", dx, "B")) for dx in ("CN", "AD"))
        for side in (-1, 1):
            assert hippocampal_mean(ill, 4, side) < 0.96 * hippocampal_mean(well, 4, side)


def test_disease_leaves_the_cerebellum_and_the_occipital_pole_alone() -> None:
    well, ill = (volume(AD, 0, Traits(72.0, "F", dx, "B")).astype(float) for dx in ("CN", "AD"))
    for low, high in (((-40, -80, -56), (40, -60, -32)), ((-30, -104, -8), (30, -92, 12))):
        far = box(4, low, high)
        assert np.abs(ill[far] - well[far]).mean() < 1.0


def test_age_thins_the_cortex() -> None:
    young, old = (volume(AD, 0, Traits(age, "F", "CN", "B"), variability=0) for age in (45.0, 80.0))
    crown = box(4, (-60, -70, 56), (60, 40, 72))
    inside = (young[crown] > 0) & (old[crown] > 0)
    assert old[crown][inside].mean() < 0.99 * young[crown][inside].mean()


def test_men_have_larger_brains_by_the_stated_ratio() -> None:
    woman, man = (
        (volume(AD, 0, Traits(60.0, sex, "CN", "B"), variability=0) > 0).sum() for sex in "FM"
    )
    assert man / woman == pytest.approx(1.11, abs=0.02)


def test_sites_differ_in_contrast() -> None:
    flat = [volume(AD, 0, Traits(60.0, "F", "CN", site)).astype(float) for site in SITES]
    brain = np.all([one > 0 for one in flat], axis=0)
    variation = [one[brain].std() / one[brain].mean() for one in flat]
    assert variation[0] < variation[1] < variation[2]


def test_variability_zero_makes_twins_of_equal_traits_but_for_the_scanner() -> None:
    traits = Traits(60.0, "F", "CN", "B")
    twins = [volume(AD, i, traits, variability=0).astype(float) for i in (0, 1)]
    people = [volume(AD, i, traits).astype(float) for i in (0, 1)]
    assert np.array_equal(twins[0] > 0, twins[1] > 0)
    assert np.abs(np.subtract(*twins)).mean() < 0.5 * np.abs(np.subtract(*people)).mean()


# --- Directory ------------------------------------------------------------------------------------


def test_same_name_same_bytes(tmp_path: Path) -> None:
    first, second = write_cohort(AD, tmp_path / "a"), write_cohort(AD, tmp_path / "b")
    assert first.name == second.name
    assert contents(first) == contents(second)
    other = write_cohort(replace(AD, seed=8), tmp_path / "a")
    assert other != first
    assert contents(other) != contents(first)


def test_a_subject_does_not_depend_on_the_others(tmp_path: Path) -> None:
    few = contents(write_cohort(replace(AD, n_subjects=2), tmp_path))
    more = contents(write_cohort(AD, tmp_path))
    scans = [name for name in few if name.endswith(".nii.gz")]
    assert len(scans) == 2
    assert all(few[scan] == more[scan] for scan in scans)


@pytest.mark.parametrize(("voxel_mm", "shape"), [(4, (46, 55, 46)), (2, (91, 109, 91))])
def test_folder_is_bids_with_mni_scans(
    tmp_path: Path, voxel_mm: int, shape: tuple[int, ...]
) -> None:
    spec = replace(AD, voxel_mm=voxel_mm, n_subjects=2)
    folder = write_cohort(spec, tmp_path)
    assert folder.parent == tmp_path / "synthetic"
    description = json.loads((folder / "dataset_description.json").read_text())
    assert {"Name", "BIDSVersion", "GeneratedBy"} <= set(description)
    assert "McConnell" in (folder / "LICENSE").read_text()

    table = pd.read_csv(folder / "participants.tsv", sep="\t", dtype=str)
    assert list(table) == ["participant_id", "age", "sex", "diagnosis", "site"]
    assert list(table["participant_id"]) == ["sub-0001", "sub-0002"]
    assert not table.isna().any(axis=None)
    for row in table.itertuples():
        path = folder / row.participant_id / "anat"
        image = nib.load(path / f"{row.participant_id}_space-MNI152NLin2009aSym_T1w.nii.gz")
        assert image.shape == shape
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert np.allclose(image.affine[:3, 3], (-90, -126, -72))
        assert np.allclose(image.header.get_zooms(), voxel_mm)
        data = np.asarray(image.dataobj)
        brain_cm3 = (data > 0).sum() * voxel_mm**3 / 1000
        assert 1300 < brain_cm3 < 2600
        assert not data[0].any()
        assert data.max() > 100


def test_second_call_writes_nothing_and_reports_nothing(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    spec = replace(AD, n_subjects=2)
    folder = write_cohort(spec, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
    times = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert write_cohort(spec, tmp_path, lambda done, total: calls.append((done, total))) == folder
    assert len(calls) == 2
    assert times == {file: file.stat().st_mtime_ns for file in folder.rglob("*")}


def test_two_at_once_give_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        folders = pool.starmap(write_cohort, [(AD, tmp_path)] * 2)
    assert folders[0] == folders[1]
    assert [path.name for path in (tmp_path / "synthetic").iterdir() if path.is_dir()] == [
        folders[0].name
    ]
    assert len(list(folders[0].rglob("*.nii.gz"))) == 8


def die(done: int, total: int) -> None:
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_in_the_middle_leaves_no_folder_and_the_next_call_clears_up(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=write_cohort, args=(AD, tmp_path, die)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (left,) = (path for path in (tmp_path / "synthetic").iterdir() if path.is_dir())
    assert ".partial-" in left.name
    folder = write_cohort(AD, tmp_path)
    assert len(list(folder.rglob("*.nii.gz"))) == 8
    assert not left.exists()


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cohort(AD, tmp_path, fail)
    assert not [path for path in (tmp_path / "synthetic").iterdir() if path.is_dir()]


def test_unknown_name_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="synthetic-ad-4mm"):
        materialise("synthetic-mci", tmp_path)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="BENCH_CACHE"):
        materialise("synthetic-ad-4mm", tmp_path / "file")


def test_the_adapter_lists_what_was_written(tmp_path: Path) -> None:
    from bench.data.adapters.synthetic import manifest

    table = manifest(write_cohort(AD, tmp_path), {})
    assert len(table) == 8
    assert sorted(table["diagnosis"]) == ["AD"] * 4 + ["CN"] * 4
    assert set(table["space"]) == {"mni"}
