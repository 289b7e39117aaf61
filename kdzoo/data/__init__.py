"""Data: sources, splits, views, loaders."""
