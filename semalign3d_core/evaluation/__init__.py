"""Evaluation: work lists, engines, reports."""
