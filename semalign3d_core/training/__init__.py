"""Training of the learned parts."""
