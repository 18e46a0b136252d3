"""Several objects in one image, and in the next one."""
