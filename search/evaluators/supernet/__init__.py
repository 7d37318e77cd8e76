"""Scoring with shared weights."""
