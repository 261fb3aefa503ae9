"""Reading what stands on the command line: lists, seeds, sizes and key=value pairs."""

from __future__ import annotations

from collections.abc import Sequence

from registry.errors import UserError


def parse_names(values: Sequence[str] | None) -> list[str]:
    """Split comma-separated, repeatable names; order kept, blanks dropped."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def parse_seeds(text: str) -> list[int]:
    """Read ``5`` as the seeds 0 to 4, and ``0,1,7`` as those.

    Raises
    ------
    UserError
        When it is neither, or a seed is negative.
    """
    problem = UserError(f"--seeds {text}: give how many (5) or which ones (0,1,2), none negative.")
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise problem from None
    if not numbers or min(numbers) < 0 or max(numbers) > 2**31:
        raise problem
    if "," in text:
        return list(dict.fromkeys(numbers))
    if not 1 <= numbers[0] <= 1000:
        raise UserError(f"--seeds {text}: give from 1 to 1000 seeds, or which ones (0,1,2).")
    return list(range(numbers[0]))


def parse_sizes(text: str, option: str = "--train-sizes") -> list[int | str]:
    """Read ``50,100,all``.

    Raises
    ------
    UserError
        When a size is neither ``all`` nor a whole number of at least 1.
    """
    sizes: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        if part == "all":
            sizes.append(part)
        elif part.isascii() and part.isdigit() and int(part) >= 1:
            sizes.append(int(part))
        else:
            raise UserError(
                f"{option} {text}: {part!r} is not a size; give numbers of subjects of at "
                "least 1, or `all`."
            )
    return sizes


def parse_size(text: str | None) -> int | str | None:
    """Read one training size, as ``50`` or ``all``; None stays None.

    Raises
    ------
    UserError
        As for `parse_sizes`, or when there are several.
    """
    if text is None:
        return None
    sizes = parse_sizes(text, option="--primary-size")
    if len(sizes) > 1:
        raise UserError(f"--primary-size {text}: give one of the training sizes.")
    return sizes[0]


def parse_pairs(option: str, values: Sequence[str] | None) -> dict[str, str]:
    """Read repeatable ``key=value`` pairs.

    Raises
    ------
    UserError
        When one has no ``=`` or a key is given twice.
    """
    pairs: dict[str, str] = {}
    for value in values or []:
        key, sign, text = value.partition("=")
        key = key.strip()
        if not sign or not key:
            raise UserError(f"{option} {value}: write it as key=value.")
        if key in pairs:
            raise UserError(f"{option} {key} is given twice.")
        pairs[key] = text.strip()
    return pairs
