"""Parametric categories rendered with full ground truth."""
