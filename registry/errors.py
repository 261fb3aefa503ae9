"""The one error that a user can cause: shown as a single sentence, exit code 2."""


class UserError(Exception):
    """A request that cannot be carried out, worded with its remedy."""
