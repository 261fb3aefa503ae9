"""Simple baselines: the prior, and a linear model on block-averaged voxels.

The estimators follow the interface of scikit-learn, with volumes (N, D, H, W) as input. Classes are
indices into ``task.classes``, and ``predict_proba`` has a column for each class, also for classes
without training subjects. torch is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from baselines.contracts import Params, Shape, Task

Volumes = Collection[NDArray[np.floating]]
"""N volumes (D, H, W): an array, a memory map or a list."""


def build_prior(params: Params, task: Task, shape: Shape) -> Prior:
    """Build the constant predictor."""
    return Prior(len(task.classes))


def build_linear_voxels(params: Params, task: Task, shape: Shape) -> LinearVoxels:
    """Build ridge (age) or logistic regression (classes) on block-averaged voxels.

    Raises
    ------
    ValueError
        If a block is larger than the volume.
    """
    if not 1 <= params["block"] <= min(shape):
        raise ValueError(
            f"block must be between 1 and {min(shape)} for a volume of "
            f"{'x'.join(map(str, shape))} voxels, got {params['block']}."
        )
    return LinearVoxels(params, len(task.classes))


class Prior:
    """Predicts the training mean, or the training frequency of each class, for every volume.

    Parameters
    ----------
    n_classes : int
        0 for regression.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes

    def fit(self, X: Volumes, y: ArrayLike) -> Prior:
        """Fit on the targets `y`; `X` is ignored."""
        y = np.asarray(y)
        if self.n_classes:
            self.frequencies_ = np.bincount(y.astype(int), minlength=self.n_classes) / len(y)
        else:
            self.mean_ = float(y.mean())
        return self

    def predict(self, X: Volumes) -> NDArray[np.float64]:
        """Return the training mean for every volume, shape (N,), in the units of the target."""
        return np.full(len(X), self.mean_)

    def predict_proba(self, X: Volumes) -> NDArray[np.float64]:
        """Return the training frequencies for every volume, shape (N, n_classes)."""
        return np.tile(self.frequencies_, (len(X), 1))


class LinearVoxels:
    """Block average, standardised voxels, principal components, ridge or logistic regression.

    All steps are fitted on the training volumes only. Standardised voxels are divided by the square
    root of their number, so that a volume has about unit length and `penalty` has the same meaning
    on every grid.

    Parameters
    ----------
    params : mapping
        ``block``: size of a block in voxels; ``n_components``: largest number of components, which
        is also limited to one less than the number of training volumes; ``penalty``: alpha of the
        ridge regression, or 1 / C of the logistic regression.
    n_classes : int
        0 for regression.
    """

    def __init__(self, params: Mapping[str, Any], n_classes: int) -> None:
        self.block = params["block"]
        self.n_components = params["n_components"]
        self.penalty = params["penalty"]
        self.n_classes = n_classes

    def fit(self, X: Volumes, y: ArrayLike) -> LinearVoxels:
        """Fit on volumes (N, D, H, W) and their targets (N,).

        Raises
        ------
        ValueError
            If there are fewer than two volumes or classes, or if all volumes are equal.
        """
        y = np.asarray(y)
        if len(y) < 2 or (self.n_classes and len(np.unique(y)) < 2):
            need = " of at least two classes" if self.n_classes else ""
            raise ValueError(
                f"linear-voxels needs at least two training volumes{need}, got {len(y)}; use a "
                "larger training size."
            )
        voxels = self._blocks(X)
        self.scaler_ = StandardScaler().fit(voxels)
        standard = self._standardise(voxels)
        if not standard.any():
            raise ValueError(
                "All training volumes of linear-voxels are equal; check the scans with bench data "
                "check."
            )
        n_components = min(self.n_components, len(y) - 1, standard.shape[1])
        # The solver may use random numbers for large data; with a fixed seed, the fit depends only
        # on the training set.
        self.pca_ = PCA(n_components, random_state=0).fit(standard)
        self.model_ = (
            LogisticRegression(C=1 / self.penalty, max_iter=10_000)
            if self.n_classes
            else Ridge(alpha=self.penalty)
        )
        self.model_.fit(self.pca_.transform(standard), y)
        return self

    def predict(self, X: Volumes) -> NDArray[np.float64]:
        """Return predicted targets, shape (N,), in the units of the training targets."""
        return np.asarray(self.model_.predict(self._scores(X)), dtype=np.float64)

    def predict_proba(self, X: Volumes) -> NDArray[np.float64]:
        """Return class probabilities, shape (N, n_classes)."""
        known = self.model_.predict_proba(self._scores(X))
        probabilities = np.zeros((len(known), self.n_classes))
        probabilities[:, self.model_.classes_.astype(int)] = known
        return probabilities

    def _scores(self, X: Volumes) -> NDArray[np.floating]:
        return self.pca_.transform(self._standardise(self._blocks(X)))

    def _standardise(self, voxels: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.scaler_.transform(voxels) / np.float32(math.sqrt(voxels.shape[1]))

    def _blocks(self, X: Volumes) -> NDArray[np.float32]:
        # Volumes are read one at a time because X may be a memory map that is larger than memory.
        return np.stack([block_average(volume, self.block).ravel() for volume in X])


def block_average(volume: NDArray[np.floating], block: int) -> NDArray[np.float32]:
    """Average a volume over cubes; the last cube along an axis may be thinner.

    Parameters
    ----------
    volume : array, shape (D, H, W)
        One volume.
    block : int
        Size of a cube in voxels.

    Returns
    -------
    array of float32, shape (ceil(D / block), ceil(H / block), ceil(W / block))
    """
    averaged = np.asarray(volume, dtype=np.float64)
    for axis, size in enumerate(volume.shape):
        starts = np.arange(0, size, block)
        thickness = np.diff(starts, append=size)
        sums = np.add.reduceat(averaged, starts, axis=axis)
        averaged = sums / thickness.reshape([-1 if a == axis else 1 for a in range(3)])
    return averaged.astype(np.float32)
