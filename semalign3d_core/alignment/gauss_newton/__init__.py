"""The fast solver: Gauss-Newton on pose and deformation modes."""
