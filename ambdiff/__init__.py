"""Diffusion models for ambiguous medical image segmentation in JAX and Flax."""

__version__ = '0.1.0'
