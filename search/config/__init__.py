"""What a search is asked for."""
