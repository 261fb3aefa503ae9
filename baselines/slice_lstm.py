"""Slice LSTM: the papers' own encoder embeds each slice in two dimensions, followed by an LSTM."""

from __future__ import annotations

from torch import Tensor, nn

from baselines.blocks import head, start_kaiming
from baselines.contracts import EncoderHandle, Params, Shape, Task
from baselines.slices import AXES, SliceEncoder, strided, trim_empty

EMBEDDING = 2
HIDDEN = 128


def build(params: Params, task: Task, shape: Shape, encoder: EncoderHandle) -> SliceLSTM:
    """Build a slice LSTM; see `SliceLSTM`."""
    return SliceLSTM(params, task.n_outputs, shape, encoder)


class SliceLSTM(nn.Module):
    """Encoder, dropout, Linear to 2, one LSTM layer of width 128 over the slices in order, head.

    Parameters
    ----------
    params : mapping
        ``axis``, ``stride``, ``normalise``, ``freeze``, ``slice_chunk``, ``dropout``,
        ``head_width``; ``first_slice`` and ``last_slice`` if empty slices are skipped.
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
        kept = trim_empty(strided(shape[AXES[params["axis"]]], params["stride"]), params)
        self.slices = SliceEncoder(encoder, params, shape, kept)
        self.dropout = nn.Dropout(params["dropout"])
        self.project = nn.Linear(encoder.feature_dim, EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.head = head(HIDDEN, params["head_width"], n_outputs, small_start=True)
        start_kaiming(self.project)

    def forward(self, x: Tensor) -> Tensor:
        """Map volumes (B, 1, D, H, W) to (B, n_outputs)."""
        return self.predict(self.slices(x))

    def predict(self, features: Tensor) -> Tensor:
        """Map slice features (B, S, feature_dim) to (B, n_outputs)."""
        embedded = self.project(self.dropout(features))
        _, (hidden, _) = self.lstm(embedded)
        return self.head(hidden[0])
