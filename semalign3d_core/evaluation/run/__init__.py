"""Running an evaluation: items, engines, cache, results."""
