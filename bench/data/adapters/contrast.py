"""What kind of image a scan is, by the words of its description and the name of its file."""

from __future__ import annotations

import re

NOT_T1 = "not a T1 image: "
"""How the reason begins why a scan of another kind is left out."""

UNKNOWN = "no T1 sequence in its description"
MASK = "a mask or segmentation"
LOCALIZER = "a localizer"
PHASE = "a phase image"


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern in which ``<`` and ``>`` are the edges of a word of letters."""
    edges = pattern.replace("<", "(?<![a-z])").replace(">", "(?![a-z])")
    return re.compile(edges, re.IGNORECASE)


_T1 = _compiled(
    # With "Accelerated", "SENSE", "GRAPPA", "REPEAT", "GradWarp", "N3" and so on before or after.
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
"""What other kinds of images are called; the first that fits is named."""


def other_kind(words: str) -> str:
    """Return the kind of image, other than T1, that words name, or nothing."""
    return next((kind for kind, pattern in _OTHERS.items() if pattern.search(words)), "")


def why_not_t1(description: str, more: str) -> str:
    """Return the reason to leave out an image that is not T1, or nothing.

    Parameters
    ----------
    description : str
        What the archive calls the series, empty where it is not known; a description must name a
        T1 sequence.
    more : str
        What else is known of the image, such as its name; it must name no other kind.
    """
    words = f"{description} {more}"
    kind = other_kind(words)
    if not kind and description and not _T1.search(words):
        kind = UNKNOWN
    return NOT_T1 + kind if kind else ""


def why_no_scan(words: str) -> str:
    """Return the reason to leave out what was made of a T1 image, or nothing.

    For files that are T1 by the rules of their cohort, so that only what was added to the name
    counts.
    """
    kind = other_kind(words)
    return NOT_T1 + kind if kind in (MASK, LOCALIZER, PHASE) else ""


_ENTITIES = re.compile(r"_(?:acq|rec|desc|label|part|mod)-[^_.]+", re.IGNORECASE)


def why_not_t1w(name: str) -> str:
    """Return `why_no_scan` of a BIDS file with the suffix ``T1w``.

    Only entities that say what an image is are looked at: participants may be called anything.
    """
    return why_no_scan("".join(_ENTITIES.findall(name)))
