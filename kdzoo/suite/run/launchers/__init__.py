"""Where cohorts are computed."""
