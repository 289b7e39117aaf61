"""The networks of the literature."""
