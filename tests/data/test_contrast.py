"""Only T1 images are scans, whatever other images there are and whatever the image ids are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench.data.adapters.contrast import UNKNOWN, why_no_scan, why_not_t1, why_not_t1w
from registry.errors import UserError
from tests.data.trees import adni, aibl, bids, ixi, oasis1, oasis2, oasis3
from tests.data.trees.scans import assert_listed, expect, listed_scans, write_scan

T1 = (
    "MPRAGE",
    "MP-RAGE",
    "MP_RAGE_SAGITTAL",
    "MP RAGE",
    "MP-RAGE-_REPEAT",
    "MPRAGE_repeat",
    "MPRAGE_3T2",
    "MPRAGE_different_coil",
    "MPRAGE_SENSE2",
    "MPRAGE_GRAPPA2",
    "mprage_nd",
    "Accelerated_Sagittal_MPRAGE",
    "Accelerated_Sagittal_MPRAGE_ND",
    "Sagittal_3D_Accelerated_MPRAGE",
    "ADNI_______SH____MPRAGE",
    "ADNI_MPRAGE_NO_ANGLE",
    "MPRAGE_ADNI_confirmed",
    "MPRAGE_ADNI_confirmed_REPEATX2",
    "HHP_6_DOF_AC-PC_registered_MPRAGE",
    "IR-SPGR",
    "IR-FSPGR",
    "SAG_IR-SPGR",
    "Accelerated_SAG_IR-SPGR",
    "ACCELERATED_SAG_IR-FSPGR",
    "FSPGR_3D",
    "SAG_3D_FSPGR",
    "Spoiled_Gradient",
    "Spoiled_Gradient_Recalled",
    "MPR__GradWarp__B1_Correction__N3__Scaled",
    "MPR__GradWarp__B1_Correction__N3__Scaled_2",
    "MPR-R__GradWarp__B1_Correction__N3__Scaled",
    "MPR____N3__Scaled",
    "MT1__GradWarp__N3m",
    "T1",
    "T1w",
    "T1_weighted",
    "t1_mpr_sag_p2_iso",
    "Sag_T1_3D_TFE",
    "Spatially_Normalized__Masked_and_N3_corrected_T1_image",
)

OTHERS = {
    "Axial_T2-FLAIR": "FLAIR",
    "Sagittal_3D_FLAIR": "FLAIR",
    "T1_FLAIR": "FLAIR",
    "t2_spc_da-fl_sag_Dark_Fluid": "FLAIR",
    "Axial_PD-T2_TSE": "T2 or PD",
    "Axial_PD_T2_FSE": "T2 or PD",
    "AX_T2_STAR": "T2 or PD",
    "Axial_T2-Star": "T2 or PD",
    "3DT2": "T2 or PD",
    "SWI_Images": "T2 or PD",
    "ADNI_Brain_PET__Raw_AV45": "PET",
    "ADNI_Brain_PET__Raw_FDG": "PET",
    "AV45_Coreg__Avg__Standardized_Image_and_Voxel_Size": "PET",
    "PIB-PET": "PET",
    "T1_to_PET": "PET",
    "localizer": "a localizer",
    "3_Plane_Localizer": "a localizer",
    "3-plane_localiser": "a localizer",
    "MPRAGE_SCOUT": "a localizer",
    "SURVEY": "a localizer",
    "Field_Mapping": "a field map or calibration",
    "gre_field_mapping": "a field map or calibration",
    "B1-Calibration_Head": "a field map or calibration",
    "ASSET_Calibration": "a field map or calibration",
    "Axial_DTI": "diffusion",
    "Axial_MB_DTI": "diffusion",
    "Axial_rsfMRI__Eyes_Open_": "functional or perfusion",
    "Resting_State_fMRI": "functional or perfusion",
    "ASL_PERFUSION": "functional or perfusion",
    "Axial_3D_PASL__Eyes_Open_": "functional or perfusion",
    "relCBF": "functional or perfusion",
    "MPRAGE_Mask": "a mask or segmentation",
    "MPR__GradWarp__B1_Correction__N3__Scaled_HarP": "a mask or segmentation",
    "MIDAS_Whole_Brain_Mask": "a mask or segmentation",
    "Hippocampus_segmentation": "a mask or segmentation",
    "T1_Map": "a quantitative map",
    "MPRAGE_Phantom": "a phantom",
    "HighResHippocampus": UNKNOWN,
    "AX_GRE": UNKNOWN,
    "Dti_part1": "diffusion",
}


@pytest.mark.parametrize("description", T1)
def test_t1_is_known_by_its_description(description: str) -> None:
    name = f"_MR_{description}_br_raw_20120401120000123_1_S1_I300001_space-MNI152Lin_desc-Crop.nii"
    assert why_not_t1(description, name) == ""


@pytest.mark.parametrize("description", OTHERS)
def test_other_images_are_called_what_they_are(description: str) -> None:
    assert why_not_t1(description, "") == f"not a T1 image: {OTHERS[description]}"


def test_an_image_without_a_description_is_judged_by_its_words() -> None:
    assert why_not_t1("", "_I300001.nii") == ""
    assert why_not_t1("", "/fmriprep/2012-03-05/I300001.nii") == ""
    assert why_not_t1("", "/FLAIR/2012-03-05/I300001.nii") == "not a T1 image: FLAIR"
    assert why_not_t1("MPRAGE", "_MR_MPRAGE_I1_brain_mask.nii").endswith("a mask or segmentation")


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("sub-1_desc-preproc_T1w.nii.gz", False),
        ("sub-1_desc-masked_T1w.nii.gz", False),
        ("sub-1_rec-norm_run-2_T1w.nii.gz", False),
        ("sub-mask1_ses-seg_T1w.nii.gz", False),
        ("sub-1_desc-mask_T1w.nii.gz", True),
        ("sub-1_label-brain_desc-aseg_T1w.nii", True),
        ("sub-1_acq-localizer_T1w.nii.gz", True),
        ("sub-1_part-phase_T1w.nii.gz", True),
    ],
)
def test_bids_files_that_are_no_images(name: str, left: bool) -> None:
    assert bool(why_not_t1w(name)) == left


@pytest.mark.parametrize("tail", ["_mask", "_brain_mask", "_seg", "_pve_0", "_labels", "_GM"])
def test_what_is_made_of_a_t1_image_is_none(tail: str) -> None:
    assert why_no_scan(tail) == "not a T1 image: a mask or segmentation"
    assert why_no_scan("_t88_masked_gfc") == ""


def add(root: Path, expected: pd.DataFrame, cohort: str, description: str, shift: int) -> dict:
    """Add an image of another kind to every visit; return the expected rows."""
    rows = []
    for row in expected.drop_duplicates(["subject_id", "session_id"]).to_dict("records"):
        parts = row["path"].split("/")
        at = parts.index(row["subject_id"])
        image = int(parts[-1].rpartition("_I")[2].split("_")[0].split(".")[0]) + shift
        modality = "PT" if "PET" in description else "MR"
        name = (
            f"{cohort}_{row['subject_id']}_{modality}_{description}_br_raw_20120401120000123_1"
            f"_S1_I{image}.nii"
        )
        place = "/".join([*parts[: at + 1], description, parts[at + 2], f"I{image}", name])
        write_scan(root / place, seed=image)
        reason = f"not a T1 image: {OTHERS[description]}"
        rows.append({**row, "path": place, "reason": reason})
    return rows


@pytest.mark.parametrize("shift", [-40000, 400000])
@pytest.mark.parametrize(
    "description",
    [
        "Axial_T2-FLAIR",
        "Axial_PD_T2_FSE",
        "ADNI_Brain_PET__Raw_AV45",
        "3_Plane_Localizer",
        "Field_Mapping",
        "MPR__GradWarp__B1_Correction__N3__Scaled_HarP",
        "HighResHippocampus",
    ],
)
@pytest.mark.parametrize("cohort", ["adni", "aibl"])
def test_another_image_of_the_visit_is_never_taken_for_its_t1(
    cohort: str, description: str, shift: int, tmp_path: Path
) -> None:
    expected = {"adni": adni, "aibl": aibl}[cohort].write(tmp_path)
    others = add(tmp_path, expected, cohort.upper(), description, shift)
    found = listed_scans(cohort, tmp_path).drop(columns="diagnosis")
    wanted = expect([*expected.to_dict("records"), *others])
    # Images that are not T1 may have a label, which is ignored.
    labels = wanted[["diagnosis"]]
    assert_listed(found.assign(diagnosis=labels["diagnosis"].to_numpy()), wanted)


@pytest.mark.parametrize("cohort", ["adni", "aibl"])
def test_a_subject_without_a_t1_image_is_lost_rather_than_mistaken(
    cohort: str, tmp_path: Path
) -> None:
    expected = {"adni": adni, "aibl": aibl}[cohort].write(tmp_path)
    first = expected["path"].iloc[0]
    subject = expected["subject_id"].iloc[0]
    add(tmp_path, expected.head(1), cohort.upper(), "Axial_T2-FLAIR", 1000)
    for path in expected.loc[expected["subject_id"] == subject, "path"]:
        (tmp_path / path).unlink()
    scans = listed_scans(cohort, tmp_path).query(f"subject_id == '{subject}'")
    assert scans["reason"].tolist() == ["not a T1 image: FLAIR"]
    assert scans["path"].iloc[0] != first


@pytest.mark.parametrize("cohort", ["adni", "aibl"])
def test_a_folder_without_any_t1_image_says_what_there_is(cohort: str, tmp_path: Path) -> None:
    expected = {"adni": adni, "aibl": aibl}[cohort].write(tmp_path)
    add(tmp_path, expected, cohort.upper(), "Axial_T2-FLAIR", 1000)
    for path in expected["path"]:
        (tmp_path / path).unlink()
    with pytest.raises(UserError, match=r"None of the .* is a T1 image.*'Axial_T2-FLAIR'"):
        listed_scans(cohort, tmp_path)


def test_the_search_table_describes_images_whose_names_do_not(tmp_path: Path) -> None:
    tree, flat = tmp_path / "tree", tmp_path / "flat"
    expected = adni.write(tree)
    others = expect(add(tree, expected.head(4), "ADNI", "Axial_T2-FLAIR", -40000))
    flat.mkdir()
    for file in tree.rglob("*.nii"):
        image = file.stem.rpartition("_I")[2]
        shutil.copy(file, flat / f"{file.name[5:15]}_I{image}.nii")
    shutil.copy(tree / "ADNIMERGE_17May.csv", flat)
    adni.write_search_table(tree, pd.concat([expected, others]), flat / "search.csv")
    scans = listed_scans("adni", flat)
    flair = scans[scans["reason"] == "not a T1 image: FLAIR"]
    assert len(flair) == len(others)
    # Images that are in no table have no description.
    lost = (expected["reason"] == "subject not in the table").sum()
    assert (scans["reason"] == "").sum() == (expected["reason"] == "").sum()
    assert lost == 1


def test_a_mask_of_ixi_is_not_its_image(tmp_path: Path) -> None:
    expected = ixi.write(tmp_path)
    for path in expected["path"]:
        file = tmp_path / path
        stem = file.name.removesuffix(".nii.gz")
        shutil.copy(file, tmp_path / f"{stem}_mask.nii.gz")
        shutil.copy(file, tmp_path / f"{stem}_seg.nii.gz")
        file.rename(tmp_path / f"{stem}_stripped.nii.gz")
    scans = listed_scans("ixi", tmp_path)
    used = scans[scans["reason"] == ""]
    assert len(used) == (expected["reason"] == "").sum()
    assert used["path"].str.endswith("_stripped.nii.gz").all()
    assert (scans["reason"] == "not a T1 image: a mask or segmentation").sum() == 2 * len(expected)


@pytest.mark.parametrize(
    ("cohort", "tree", "made"),
    [
        ("oasis1", oasis1, lambda name: name.replace("_gfc", "_gfc_mask", 1)),
        ("oasis2", oasis2, lambda name: name.replace("mpr-1", "mpr-1_mask").replace("2", "2_seg")),
        ("oasis3", oasis3, lambda name: name.replace("_T1w", "_desc-brainmask_T1w")),
        ("bids", bids, lambda name: name.replace("_T1w", "_desc-aseg_T1w")),
    ],
)
def test_masks_beside_images_change_nothing(cohort, tree, made, tmp_path: Path) -> None:
    expected = tree.write(tmp_path)
    for path in expected["path"]:
        for file in (tmp_path / path, (tmp_path / path).with_suffix(".hdr")):
            if file.is_file() and made(file.name) != file.name:
                shutil.copy(file, file.with_name(made(file.name)))
    scans = listed_scans(cohort, tmp_path)
    masks = scans["reason"] == "not a T1 image: a mask or segmentation"
    assert masks.sum() > 0
    assert_listed(scans[~masks], expected)


def test_the_second_run_comes_before_the_tenth(tmp_path: Path) -> None:
    expected = bids.write(tmp_path)
    for path in expected["path"]:
        file = tmp_path / path
        for run in (10, 2):
            shutil.copy(file, file.with_name(file.name.replace("_T1w", f"_run-{run}_T1w")))
        file.unlink()
    scans = listed_scans("bids", tmp_path)
    used = scans[scans["reason"] == ""]
    assert len(used) == len(expected)
    assert used["path"].str.contains("_run-2_").all()
