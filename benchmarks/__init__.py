"""Benchmarks: the pipeline's real stages and runs beside other ways to do the same work, as ratios in one run.

``python -m benchmarks --list`` names the cases; ``benchmarks/README.md`` tells what is measured and how.
"""
