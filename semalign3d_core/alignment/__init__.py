"""Section 3.2: aligning a category model to an image."""
