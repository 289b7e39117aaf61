"""From words to runs to jobs."""
