"""Few-slice models: a 2D encoder applied to k central slices."""

from __future__ import annotations

from torch import Tensor, nn

from baselines.blocks import EMBEDDING, head
from baselines.contracts import EncoderHandle, Params, Shape, Task
from baselines.slices import AXES, SliceEncoder, central


def build(params: Params, task: Task, shape: Shape, encoder: EncoderHandle) -> FewSlice:
    """Build a few-slice model; see `FewSlice`."""
    return FewSlice(params, task.n_outputs, shape, encoder)


class FewSlice(nn.Module):
    """The 2D-slice model with mean pooling, applied to k slices only.

    Parameters
    ----------
    params : mapping
        ``k`` slices, ``spacing`` slices apart, along ``axis``; ``form``: ``average`` averages the
        embeddings of the slices, ``channels`` uses them as the channels of one image;
        ``normalise``, ``freeze``, ``dropout``, ``head_width``.
    n_outputs : int
        Number of outputs.
    shape : (D, H, W)
        Volume shape in voxels.
    encoder : EncoderHandle
        The 2D encoder.

    Raises
    ------
    ValueError
        If the slices do not fit into the volume or are not suitable for the encoder.
    """

    def __init__(
        self, params: Params, n_outputs: int, shape: Shape, encoder: EncoderHandle
    ) -> None:
        super().__init__()
        kept = central(shape[AXES[params["axis"]]], params["k"], params["spacing"])
        as_channels = params["form"] == "channels"
        self.slices = SliceEncoder(encoder, params, shape, kept, as_channels)
        self.dropout = nn.Dropout(params["dropout"])
        self.project = nn.Linear(encoder.feature_dim, EMBEDDING)
        self.head = head(EMBEDDING, params["head_width"], n_outputs, small_start=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map volumes (B, 1, D, H, W) to (B, n_outputs)."""
        return self.predict(self.slices(x))

    def predict(self, features: Tensor) -> Tensor:
        """Map slice features (B, S, feature_dim) to (B, n_outputs)."""
        embedded = self.project(self.dropout(features))
        return self.head(embedded.mean(dim=1))
