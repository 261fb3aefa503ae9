"""A small copy of OASIS-1: Analyze pairs on discs, rescans, adults who were not rated."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.data.trees.scans import expect, write_analyze

TABLE = "oasis_cross-sectional.csv"
HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"

RATINGS = ("0", "0", "1", "0.5", "0.0", "1.0", "2", "")
"""CDR of subjects in turn; the last ones are young."""

DIAGNOSES = {"0": "CN", "0.0": "CN", "1": "AD", "1.0": "AD", "2": "AD"}
"""Among the classes CN and AD."""

WORDS = {"0.5": "diagnosis MCI, not among the classes", "": "no diagnosis"}


def images_of(scan: str) -> dict[str, str]:
    """Return the images of one session by what they are, ``.img``; two of them were made of raw."""
    average = f"{scan}_mpr_n4_anon"
    return {
        "RAW": f"RAW/{scan}_mpr-1_anon.img",
        "RAW again": f"RAW/{scan}_mpr-2_anon.img",
        "SUBJ_111": f"PROCESSED/MPRAGE/SUBJ_111/{average}_sbj_111.img",
        "T88_111 with skull": f"PROCESSED/MPRAGE/T88_111/{average}_111_t88_gfc.img",
        "T88_111": f"PROCESSED/MPRAGE/T88_111/{average}_111_t88_masked_gfc.img",
        "segments": f"FSL_SEG/{average}_111_t88_masked_gfc_fseg.img",
    }


def write(root: Path, n_subjects: int = 24, discs: bool = True) -> pd.DataFrame:
    """Write the cohort; return its manifest with default options.

    Subject 1 has a rescan with a row of its own, subject 2 one without; the last is in no table.
    """
    lines, rows, seed = [HEADER], [], 0
    for i in range(1, n_subjects + 1):
        subject, rating = f"OAS1_{i:04d}", RATINGS[i % len(RATINGS)]
        sex, age = "FM"[i // 2 % 2], 25 if rating == "" else 60 + i % 30
        listed = i < n_subjects
        if listed:
            lines.append(f"{subject}_MR1,{sex},R,{age},2,3,29,{rating},1344,0.743,1.306,N/A")
        sessions = ["MR1", "MR2"] if i <= 2 else ["MR1"]
        if i == 1:
            lines.append(f"{subject}_MR2,{sex},R,{age},,,,,1344,0.743,1.306,40")
        for session in sessions:
            place = f"disc{1 + i % 2}/" if discs else ""
            place += f"{subject}_{session}"
            for kind, name in images_of(f"{subject}_{session}").items():
                seed += 1
                write_analyze(root / place / name, seed)
                if kind == "segments":
                    continue
                reason = WORDS.get(rating, "") if listed else "subject not in the table"
                if kind == "T88_111 with skull":
                    reason = "another image of the same visit is used"
                elif kind != "T88_111":
                    reason = "not the image asked for (T88_111)"
                rows.append(
                    {
                        "subject_id": subject,
                        "session_id": session,
                        "path": f"{place}/{name}",
                        "age": age if listed else None,
                        "sex": sex if listed else "",
                        "diagnosis": DIAGNOSES.get(rating, "") if listed else "",
                        "source": _source(rating, session) if listed else "",
                        "reason": reason,
                    }
                )
    # Unusable scans are not chosen among: those of a subject in no table keep that reason.
    for row in rows:
        if row["source"] == "" and "_t88_" in row["path"]:
            row["reason"] = "subject not in the table"
    (root / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return expect(rows)


def _source(rating: str, session: str) -> str:
    return f"CDR {rating or 'blank'}" + (" of MR1" if session == "MR2" else "")
