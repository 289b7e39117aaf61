"""What the author of a method sees: outputs, the registry, methods and their sum."""
