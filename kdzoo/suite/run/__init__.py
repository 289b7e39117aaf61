"""Where runs are trained: workers, launchers, what a person sees meanwhile."""
