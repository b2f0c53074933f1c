"""Builders and readers that yield one example dict, and the input pipeline."""
