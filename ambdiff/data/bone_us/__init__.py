"""Bone surfaces in ultrasound: scans in a folder, and simulated ones."""
