"""The networks and estimators under comparison, one family a file.

Imports nothing of the harness: cards, tasks and encoder handles arrive as plain objects, described
in `baselines.contracts`.
"""
