"""Evaluation of sets of crystals and molecules from any generator."""

from adit_plugins.metrics.rates import Rate

__all__ = ["Rate"]
