"""The shape of a category: starts, factor model, constraints from masks."""
