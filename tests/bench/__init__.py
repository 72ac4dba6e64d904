"""Benchmarks: a command, not tests.

``python -m tests.bench`` measures floors (what the disk and the interpreter cost by themselves),
this project and its peers, interleaved, each measurement in a fresh process, and prints medians,
ranges and the ratios that the project promises. See ``--help``.
"""
