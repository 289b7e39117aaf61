"""What is frozen, written and read back. Free of torch."""
