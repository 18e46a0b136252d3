"""Pictures and pages that show what was found; nothing here computes it."""
