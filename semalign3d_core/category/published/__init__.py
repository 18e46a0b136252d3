"""The published construction: what only the preset ``reference`` takes."""
