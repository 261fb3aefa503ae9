"""Parsing of command-line values: lists, seeds, training sizes and key=value pairs."""

from __future__ import annotations

from collections.abc import Sequence

from registry.errors import UserError


def parse_names(values: Sequence[str] | None) -> list[str]:
    """Split names separated by commas, in their order and without empty ones."""
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def parse_seeds(text: str) -> list[int]:
    """Parse a number of seeds (``5`` means 0 to 4) or a list of seeds (``0,1,7``).

    Raises
    ------
    UserError
        If it is neither, or a seed is negative.
    """
    problem = UserError(
        "--seeds must be a number of seeds such as 5, or a list of non-negative seeds such as "
        f"0,1,2, got {text!r}."
    )
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise problem from None
    if not numbers or min(numbers) < 0 or max(numbers) > 2**31:
        raise problem
    if "," in text:
        return list(dict.fromkeys(numbers))
    if not 1 <= numbers[0] <= 1000:
        raise UserError(
            f"--seeds must be between 1 and 1000, got {text}; list seeds as in 0,1,2 to choose "
            "particular ones."
        )
    return list(range(numbers[0]))


def parse_sizes(text: str, option: str = "--train-sizes") -> list[int | str]:
    """Parse training sizes such as ``50,100,all``.

    Raises
    ------
    UserError
        If a size is neither ``all`` nor a positive integer.
    """
    sizes: list[int | str] = []
    for part in (part.strip() for part in text.split(",")):
        if part == "all":
            sizes.append(part)
        elif part.isascii() and part.isdigit() and int(part) >= 1:
            sizes.append(int(part))
        else:
            raise UserError(
                f"{option} {text} is invalid: {part!r} is neither a positive number of subjects "
                "nor `all`."
            )
    return sizes


def parse_size(text: str | None) -> int | str | None:
    """Parse one training size such as ``50`` or ``all``; return None for None.

    Raises
    ------
    UserError
        As for `parse_sizes`, or if there are several sizes.
    """
    if text is None:
        return None
    sizes = parse_sizes(text, option="--primary-size")
    if len(sizes) > 1:
        raise UserError(f"--primary-size must be a single training size, got {text}.")
    return sizes[0]


def parse_pairs(option: str, values: Sequence[str] | None) -> dict[str, str]:
    """Parse ``key=value`` pairs.

    Raises
    ------
    UserError
        If a pair has no ``=`` or a key is given twice.
    """
    pairs: dict[str, str] = {}
    for value in values or []:
        key, sign, text = value.partition("=")
        key = key.strip()
        if not sign or not key:
            raise UserError(f"{option} must have the form key=value, got {value!r}.")
        if key in pairs:
            raise UserError(f"{option} {key} was given twice; remove one of them.")
        pairs[key] = text.strip()
    return pairs


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Check that a value is one of the choices.

    Raises
    ------
    UserError
        If it is not.
    """
    if value not in choices:
        raise UserError(f"{option} must be one of {', '.join(choices)}, got {value!r}.")


def check_least(option: str, value: int | None, least: int) -> None:
    """Check that a number, if one is given, is not too small.

    Raises
    ------
    UserError
        If it is.
    """
    if value is not None and value < least:
        raise UserError(f"{option} must be at least {least}, got {value}.")


def parse_limit(text: str | None, total: int) -> int | None:
    """Return the number of failures that ``--max-failures`` allows among `total` trials.

    Raises
    ------
    UserError
        If it is neither a number of trials nor a percentage.
    """
    if text is None:
        return None
    number = text.strip().removesuffix("%")
    if not (number.isascii() and number.isdigit()) or ("%" in text and int(number) > 100):
        raise UserError(
            f"--max-failures must be a number of trials such as 10, or a share such as 5%, got "
            f"{text!r}."
        )
    return int(number) * total // 100 if "%" in text else int(number)


def parse_shard(text: str) -> tuple[int, int]:
    """Parse a part of a plan such as ``3/8``.

    Raises
    ------
    UserError
        If it is not two numbers, or the first is not between 1 and the second.
    """
    part, _, parts = text.partition("/")
    numbers = [int(each) if each.isascii() and each.isdigit() else 0 for each in (part, parts)]
    if not 1 <= numbers[0] <= numbers[1]:
        raise UserError(f"--shard must be a part of all parts such as 3/8, got {text!r}.")
    return numbers[0], numbers[1]
