"""The base of what the cost model refuses."""


class CostModelError(Exception):
    """Raised on purpose; its text says what was wrong and what would be right, fit for the user."""
