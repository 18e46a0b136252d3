"""Training of the embedded backbone on the synthetic categories."""
