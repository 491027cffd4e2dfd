"""ATTS runtime: asynchronous test-time scaling of language models, for real.

Light to import: engines and torch load when a run starts.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
