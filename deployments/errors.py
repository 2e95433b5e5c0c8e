"""The error that commands show to the user."""


class UserError(Exception):
    """A fault that the user can correct; it is shown without a traceback."""
