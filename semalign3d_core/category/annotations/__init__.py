"""Annotated keypoints of the training images: checks, correction, views and their cache."""
