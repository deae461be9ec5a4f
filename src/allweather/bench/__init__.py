"""Honest evaluation: metrics, scoring, protocols, records."""
