"""One file, one method: the pure function, then its declaration."""
