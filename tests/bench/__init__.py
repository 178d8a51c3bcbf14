"""Measurements: baselines and ours, side by side in one run; figures go to build/*.json. Nothing is asserted here.

Not here: tests.
"""
