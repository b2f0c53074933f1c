"""Errors that are the user's to mend."""


class UserError(ValueError):
    """A mistake in a flag, config field or file: one line that names it and the cure.

    The command lines print the message to stderr and exit with status 2, without a traceback. What the message quotes
    (a library's error, a file's name) may have several lines; the message has one.
    """

    def __init__(self, message: object):
        super().__init__(' '.join(str(message).splitlines()))
