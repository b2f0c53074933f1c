"""Readers of one file: pixels or voxels, geometry, what the format says of their meaning."""
