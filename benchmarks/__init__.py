"""Benchmarks: every figure that the documents lease has its command here."""
