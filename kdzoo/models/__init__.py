"""Networks: the one door to timm, and the networks of the literature."""
