"""From an image to what is known of it: features, depth, mask, camera."""
