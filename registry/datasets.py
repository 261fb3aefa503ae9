"""Placeholder until the catalogue of datasets is written (by its owner)."""

from registry.cards import DatasetCard

DATASETS: tuple[DatasetCard, ...] = ()
