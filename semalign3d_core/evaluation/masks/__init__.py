"""Evaluation by masks: label transfer accuracy and IoU."""
