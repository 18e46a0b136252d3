"""Vectors of GeoAware-SC about data sets and metrics."""

CHECKS = {}
