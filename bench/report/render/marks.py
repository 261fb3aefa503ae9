"""Signs of a cell, the same in every format; a report's caption says what they mean."""

BEST = " *"
"""The best of its column, where nothing can be set in bold."""
TIED = " ~"
"""Not separable from the best of its column."""
