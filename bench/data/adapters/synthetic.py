"""The embedded synthetic cohorts: BIDS folders in MNI space, read as any other BIDS folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from bench.data.adapters import bids
from registry.cards import Value


def manifest(root: Path, options: Mapping[str, Value]) -> pd.DataFrame:
    """List the scans of a folder that `bench.data.synthetic.materialise` returned.

    Parameters
    ----------
    root : Path
        The cohort's folder.
    options : mapping
        The options of the BIDS adapter.

    Returns
    -------
    DataFrame
        One row a scan, as `bench.data.adapters.bids.manifest` describes it.

    Raises
    ------
    UserError
        When the folder is not complete.
    """
    return bids.manifest(root, options)
