"""Pairs of strings: a source, and the target that it is turned into."""
