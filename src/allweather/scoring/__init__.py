"""Scores of predictions against the truth: confusion, intervals, calibration, uncertainty."""
