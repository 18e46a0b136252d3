"""The dense surface of a category as a function of its keypoints."""
