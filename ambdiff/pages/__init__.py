"""The kit that every page is made of: frame, case, viewer, plots, figures."""
