"""Flax linen modules; they know no schedule."""
