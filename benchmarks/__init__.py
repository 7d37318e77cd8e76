"""Benchmarks: every figure that the documents claim has its command here."""
