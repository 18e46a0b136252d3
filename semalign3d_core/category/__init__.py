"""Section 3.1: building the model of a category."""
