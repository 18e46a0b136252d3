"""The version of the package, beside nothing else so that everybody can read it."""

__version__ = "0.1.0"
