"""The command `ambdiff`: what a user types, and nothing of what is then done."""
