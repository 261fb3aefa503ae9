"""Recognition of T1 images by their description and file name."""

from __future__ import annotations

import re

NOT_T1 = "not a T1 image: "
"""Beginning of the reason for excluding an image of another kind."""

UNKNOWN = "no T1 sequence in its description"
MASK = "a mask or segmentation"
LOCALIZER = "a localizer"
PHASE = "a phase image"


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in which ``<`` and ``>`` mean that no letter precedes or follows."""
    edges = pattern.replace("<", "(?<![a-z])").replace(">", "(?![a-z])")
    return re.compile(edges, re.IGNORECASE)


_T1 = _compiled(
    # "Accelerated", "SENSE", "GRAPPA", "REPEAT", "GradWarp", "N3" etc. may precede or follow.
    r"mp2?[-_ ]*rage|spgr|spoiled[-_ ]*gra|<bravo|<mpr>|<(?:tfe|tfl)>"
    r"|<(?:3d|m|sag|ax|cor|tra)?[-_ ]*t1(?!\d)"
)

_OTHERS = {
    MASK: _compiled(
        r"mask(?!ed)|seg(?:m(?:ent(?:ations?|ed)?)?)?>|<(?:harp|labels?|rois?|aparc|parc|atlas)>"
        r"|parcellation|<(?:pve|prob|gm|wm|csf|ribbon)>|jacobian|deformation"
    ),
    LOCALIZER: _compiled(r"locali[sz]er|scout|<survey|<(?:3|three)[-_ ]*plane|<loc>"),
    "FLAIR": _compiled(r"flair|dark[-_ ]*fluid"),
    "PET": _compiled(
        r"<(?:pet|fdg|pib|av[-_ ]*(?:45|133|1451)|mk[-_ ]*6240|suvr?)>|florbeta|flutemet|flortau"
    ),
    "a field map or calibration": _compiled(
        r"field[-_ ]*map|<fmap|<b[01][-_ ]*map|calib|<cal>|<phase[-_ ]*(?:diff|map)|<shim>"
    ),
    "diffusion": _compiled(r"dti>|<(?:dwi|diff|diffusion|tracew?|adc|hardi|noddi|tensor)>"),
    "functional or perfusion": _compiled(
        r"fmri(?!prep)|<(?:bold|epi|rest|resting)>|<[a-z]{0,2}asl>|cbf>|perfusion"
    ),
    "T2 or PD": _compiled(
        r"(?:\b|_)(?:3d|ax|axial|sag|cor|tra)?[-_ ]*t2|<pd>|<pdt2|proton"
        r"|<(?:swi|swan|haste|ciss)>"
    ),
    "a quantitative map": _compiled(r"t1[-_ ]*(?:map|rho)|<inv[-_ ]*[12]>"),
    PHASE: _compiled(r"part-(?:phase|imag|real)>"),
    "a phantom": _compiled(r"phantom"),
}
"""Patterns of other kinds of images; the first one that matches is reported."""


def other_kind(words: str) -> str:
    """Return the kind of image other than T1 that a text mentions, or an empty string."""
    return next((kind for kind, pattern in _OTHERS.items() if pattern.search(words)), "")


def why_not_t1(description: str, more: str) -> str:
    """Return the reason for excluding an image that is not T1, or an empty string.

    Parameters
    ----------
    description : str
        The description of the series in the archive, empty if unknown. It must mention a T1
        sequence.
    more : str
        Other text about the image, such as its name. It must not mention another kind of image.
    """
    words = f"{description} {more}"
    kind = other_kind(words)
    if not kind and description and not _T1.search(words):
        kind = UNKNOWN
    return NOT_T1 + kind if kind else ""


def why_no_scan(words: str) -> str:
    """Return the reason for excluding a file derived from a T1 image, or an empty string.

    This is for cohorts in which all files are T1 images or derived from them, so that only masks,
    localizers and phase images must be recognised.
    """
    kind = other_kind(words)
    return NOT_T1 + kind if kind in (MASK, LOCALIZER, PHASE) else ""


_ENTITIES = re.compile(r"_(?:acq|rec|desc|label|part|mod)-[^_.]+", re.IGNORECASE)


def why_not_t1w(name: str) -> str:
    """Return `why_no_scan` for a BIDS file with the suffix ``T1w``.

    Only the entities that describe the image are used, because ids of subjects are arbitrary.
    """
    return why_no_scan("".join(_ENTITIES.findall(name)))
