"""SphericalMaps: features mapped to a sphere on which the sides of an object lie apart.

Source: Mariotti et al., "Improving Semantic Correspondence with Viewpoint-Guided Spherical Maps", CVPR 2024.
"""
