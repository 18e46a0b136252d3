"""Cameras, image grids, rotations and masks as fields: every coordinate convention lives here."""
