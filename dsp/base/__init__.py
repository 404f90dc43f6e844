"""Money, clock, configuration, metrics, hashing and signing; imports nothing of this project."""
