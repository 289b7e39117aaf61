"""Teachers: their answers, live or from the cache."""
