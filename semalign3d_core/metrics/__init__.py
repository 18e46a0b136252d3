"""Correspondence metrics, on plain arrays.

``pck`` (PCK, PCK-dagger, kinds of errors), ``aggregate`` (per image and per point, per category and over all), ``breakdown``
(SPair-71k's difficulties), ``geometry_subset``, ``kap`` and ``average_precision``, ``mask_transfer`` and ``grid_transfer``.
"""
