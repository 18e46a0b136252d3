"""GeoAware-SC: a post-processor that makes features tell left from right, and its training.

Source: "Telling Left from Right: Identifying Geometry-Aware Semantic Correspondence" (CVPR 2024).
"""
