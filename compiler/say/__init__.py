"""A plan in, text out: `explain` describes it for a reader, `emit` writes it as a Python module."""
