"""Errors that are the user's to mend."""


class UserError(ValueError):
    """A mistake in a flag, config field or file: one line that names it and the cure.

    The command lines print the message to stderr and exit with status 2, without a traceback.
    """
