"""2D-slice models: a 2D encoder embeds each slice, and the embeddings of all slices are pooled.

Gupta et al., "Improved Brain Age Estimation with Slice-based Set Networks", ISBI 2021, and
"Transferring Models Trained on Natural Images to 3D MRI via Position Encoded Slice Models", 2023.
"""

from __future__ import annotations

from torch import Tensor, nn

from baselines.blocks import EMBEDDING, head, start_kaiming
from baselines.contracts import EncoderHandle, Params, Shape, Task
from baselines.pooling import pooling
from baselines.position import position
from baselines.slices import AXES, SliceEncoder, strided, trim_empty


def build(params: Params, task: Task, shape: Shape, encoder: EncoderHandle) -> Slice2D:
    """Build a 2D-slice model; see `Slice2D`."""
    return Slice2D(params, task.n_outputs, shape, encoder)


class Slice2D(nn.Module):
    """Encoder, dropout, Linear to 32, pooling over slices, and head, with position embeddings.

    The encoder determines whether position embeddings are added before or after the linear layer.

    Parameters
    ----------
    params : mapping
        ``axis``, ``stride``, ``normalise``, ``freeze``, ``slice_chunk``, ``position``,
        ``position_norm``, ``dropout``, ``pool``, ``head_width``; ``first_slice`` and
        ``last_slice`` if empty slices are skipped.
    n_outputs : int
        Number of outputs.
    shape : (D, H, W)
        Volume shape in voxels.
    encoder : EncoderHandle
        The 2D encoder.

    Raises
    ------
    ValueError
        If the stride exceeds the number of slices, or if the slices are not suitable for the
        encoder.
    """

    def __init__(
        self, params: Params, n_outputs: int, shape: Shape, encoder: EncoderHandle
    ) -> None:
        super().__init__()
        all_kept = strided(shape[AXES[params["axis"]]], params["stride"])
        kept = trim_empty(all_kept, params)
        # The papers initialise the other layers only with their own encoder, which is the kind that
        # adds positions to its features; otherwise torch's initialisation is used.
        own = encoder.position_at == "features"

        def positions(features: int) -> nn.Module:
            first = all_kept.index(kept.start)
            return position(params["position"], params["position_norm"], len(kept), features, first)

        self.slices = SliceEncoder(encoder, params, shape, kept)
        self.position_early = positions(encoder.feature_dim) if own else nn.Identity()
        self.dropout = nn.Dropout(params["dropout"])
        self.project = nn.Linear(encoder.feature_dim, EMBEDDING)
        self.position_late = nn.Identity() if own else positions(EMBEDDING)
        self.pool = pooling(params["pool"], EMBEDDING, small_start=own)
        self.head = head(EMBEDDING, params["head_width"], n_outputs, small_start=own)
        if own:
            start_kaiming(self.project)

    def forward(self, x: Tensor) -> Tensor:
        """Map volumes (B, 1, D, H, W) to (B, n_outputs)."""
        return self.predict(self.slices(x))

    def predict(self, features: Tensor) -> Tensor:
        """Map slice features (B, S, feature_dim) to (B, n_outputs)."""
        features = self.position_early(features)
        embedded = self.position_late(self.project(self.dropout(features)))
        return self.head(self.pool(embedded))
