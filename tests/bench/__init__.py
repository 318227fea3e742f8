"""Figures, each beside its counterpart from the same run. ``make bench``; never part of the tests."""
