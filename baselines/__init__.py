"""The networks and estimators that are compared, one family per file.

This package imports nothing from `bench` or `registry`; the objects passed to it are described in
`baselines.contracts`.
"""
