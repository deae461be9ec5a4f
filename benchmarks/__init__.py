"""Measurements behind every claim; run each as a module: python -m benchmarks.NAME."""
