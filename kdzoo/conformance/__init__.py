"""What every method must pass."""
