"""The bench: plan, store, launch, select, tables."""
