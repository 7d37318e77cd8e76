"""``cp-search``."""
