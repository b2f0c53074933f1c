"""Weights of the released PyTorch code: its files and its names."""
