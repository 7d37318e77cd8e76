"""The study: where it is kept, its trials, and the processes that share it."""
