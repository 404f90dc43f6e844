"""A demand-side platform that buys customers for financial products; see README.md."""

__version__ = "0.1.0"
