"""Studies made of several evaluations."""
