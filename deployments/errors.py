"""What commands raise for the user to read."""


class UserError(Exception):
    """Something the user can put right; shown without a traceback."""
