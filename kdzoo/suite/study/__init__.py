"""Claims of the literature, trained again."""
