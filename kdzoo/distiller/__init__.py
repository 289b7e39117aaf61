"""Distillation in a training loop of a user's own: the zoo's methods as modules that give the loss."""
