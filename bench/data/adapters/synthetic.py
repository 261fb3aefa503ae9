"""The synthetic cohorts: BIDS directories in MNI space, read by the BIDS adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters import bids
from registry.cards import Value


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the scans of a directory returned by `bench.data.synthetic.materialise`.

    Parameters
    ----------
    root : Path
        The directory of the cohort.
    options : mapping
        The options of the BIDS adapter.

    Returns
    -------
    DataFrame
        One row per scan; see `bench.data.adapters.bids.manifest`.

    Raises
    ------
    UserError
        If the directory is not complete.
    """
    return bids.manifest(root, options)
