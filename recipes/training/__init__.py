"""One training: loss, updates, averaged weights."""
