"""Readers of a data set as it lies on disk; each yields the example dict."""
