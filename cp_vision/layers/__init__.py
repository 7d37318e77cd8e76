"""ContextPool as modules."""
