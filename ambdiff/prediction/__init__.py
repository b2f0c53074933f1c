"""A stranger's images to samples: read, plan, draw, merge, write."""
