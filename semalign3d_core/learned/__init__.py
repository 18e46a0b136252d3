"""Trained systems, one folder each; :mod:`.loop` trains them all."""
