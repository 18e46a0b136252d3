"""Evaluation by keypoints: pairs, predictions, PCK and KAP."""
