"""One small program for each thing that is measured.

Each is run as ``python -m bench.systems.NAME '{"folder": ..., "n": ...}'`` by the interpreter that
has what it needs, and prints one JSON object of numbers. They import nothing of this package but
``common``.
"""
