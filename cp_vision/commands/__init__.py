"""``cp-models``."""
