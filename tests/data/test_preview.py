"""The picture of `bench data preview`: directions, proportions and notes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from bench.data.listing import CohortRequest, Listing
from bench.data.preview import picture
from registry.core import catalogue
from registry.datasets import dataset_options
from registry.errors import UserError


def listing(files: list[Path], **options) -> Listing:
    card = catalogue.dataset("table")
    values = {name: card.defaults.get(name, o.default) for name, o in dataset_options(card).items()}
    values |= {"space": "native", "grid": "mni-4mm", **options}
    scans = pd.DataFrame(
        {
            "subject_id": [str(number) for number in range(len(files))],
            "path": [file.name for file in files],
            "file": [str(file) for file in files],
            "age": 60.0 + np.arange(len(files)),
            "diagnosis": "CN",
            "sex": "",
            "reason": "",
        }
    )
    return Listing(CohortRequest("mine", card, None, values, "age"), files[0].parent, scans)


def head(signs: tuple[int, int, int]) -> nib.Nifti1Image:
    """A head of 60 x 80 x 50 mm that is brightest right, anterior and superior.

    The signs say which way the stored axes point; voxels are 1 x 2 x 5 mm.
    """
    data = np.zeros((80, 60, 20), np.float32)
    data[10:70, 10:50, 5:15] = 100
    data[40:70, 30:50, 10:15] = 1000
    data = data[:: signs[0], :: signs[1], :: signs[2]]
    affine = np.diag([*(np.array(signs) * [1.0, 2.0, 5.0]), 1.0])
    return nib.Nifti1Image(np.ascontiguousarray(data), affine)


def letters(axis) -> dict[str, tuple[float, float]]:
    return {text.get_text(): text.get_position() for text in axis.texts}


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_letters_stand_where_the_header_says(signs, tmp_path: Path) -> None:
    nib.save(head(signs), tmp_path / "a.nii.gz")
    figure, notes = picture(listing([tmp_path / "a.nii.gz"]))
    assert notes == []
    for number, bright in enumerate(("AS", "RS", "RA") * 2):
        axis = figure.axes[number]
        pixels = axis.images[0].get_array()
        assert axis.images[0].origin == "lower"
        up, across = (np.arange(n) - (n - 1) / 2 for n in pixels.shape)
        # The letter and the bright part are on the same side of the centre.
        place = letters(axis)
        assert place[bright[0]][0] > 0.5, number
        assert float((pixels * across[None, :]).sum()) > 0, number
        assert place[bright[1]][1] > 0.5, number
        assert float((pixels * up[:, None]).sum()) > 0, number


def test_voxels_are_drawn_in_proportion(tmp_path: Path) -> None:
    nib.save(head((1, 1, 1)), tmp_path / "a.nii.gz")
    figure, _ = picture(listing([tmp_path / "a.nii.gz"]))
    aspects = [axis.get_aspect() for axis in figure.axes]
    assert aspects == pytest.approx([5 / 2, 5 / 1, 2 / 1, 1, 1, 1])


def test_analyze_has_letters_in_doubt_and_a_hint(tmp_path: Path) -> None:
    nib.save(
        nib.AnalyzeImage(head((1, 1, 1)).get_fdata().astype(np.int16), None), tmp_path / "a.img"
    )
    figure, notes = picture(listing([tmp_path / "a.img"]))
    assert set(letters(figure.axes[1])) == {"L?", "R?", "I?", "S?"}
    assert len(notes) == 1
    assert "gives no orientation" in notes[0]


def test_a_scan_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    nib.save(head((1, 1, 1)), tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:500])
    both = [tmp_path / "b.nii.gz", tmp_path / "a.nii.gz"]
    figure, notes = picture(listing(both))
    assert len(figure.axes) == 6
    assert notes == ["Not shown: b.nii.gz: the gzip file is truncated."]
    with pytest.raises(UserError, match=r"b\.nii\.gz: the gzip file is truncated"):
        picture(listing(both[:1]))
