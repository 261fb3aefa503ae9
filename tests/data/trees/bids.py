"""A plain BIDS folder: one T1w image a participant, ages in ``participants.tsv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_scan


def write(root: Path, n_subjects: int = 12) -> pd.DataFrame:
    """Write the directory; return its manifest with default options."""
    lines, rows = ["participant_id\tage\tsex"], []
    for i in range(1, n_subjects + 1):
        place = f"sub-{i:02d}/anat/sub-{i:02d}_T1w.nii.gz"
        write_scan(root / place, seed=i)
        lines.append(f"sub-{i:02d}\t{50 + i}\tF")
        source = f"participants.tsv age '{50 + i}'"
        row = {"subject_id": f"{i:02d}", "path": place, "age": 50 + i, "sex": "F"}
        rows.append({**row, "source": source})
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    return expect(rows)
