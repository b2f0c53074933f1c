"""LIDC-IDRI: scans, outlines, splits, and simulated images under real outlines."""
