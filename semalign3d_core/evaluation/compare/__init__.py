"""Several evaluations of the same pairs, side by side."""
