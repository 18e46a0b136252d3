"""What comes in: subscriptions, partners of an image, and messages as values of the core."""
