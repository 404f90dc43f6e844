"""The engine and its stages."""
