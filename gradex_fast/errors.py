"""The one exception that a user is meant to read."""


class GradexError(Exception):
    """A mistake that the user can mend: one line that says what was wrong, where, and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
