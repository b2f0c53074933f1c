"""Weights of the released PyTorch code: its files (files.py), and its names and layouts (layout.py)."""
