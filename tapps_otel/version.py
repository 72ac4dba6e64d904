"""The version of this package: the build reads it from here.

Asking for an installed package's takes a millisecond, and a source tree has none.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
