"""Errors that a user can cause, shown without a traceback and with exit code 2."""


class UserError(Exception):
    """An error that a user can cause; the message states the remedy."""
