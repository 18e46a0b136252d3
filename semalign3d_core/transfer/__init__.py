"""Transfer of points from one image to another through the category (Eq. 14)."""
