"""The diffusion process, free of Flax: plain functions of a denoise_fn.

schedules.py    how much noise each step adds
gaussian.py     q, posterior, bound and steps over real values
categorical.py  the same over labels
starts.py       what the reverse process starts from
samplers.py     the reverse process
"""
