"""The diffusion process, free of Flax: schedules, Gaussian process, samplers."""
