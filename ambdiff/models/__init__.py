"""The networks (Flax linen modules); they know no noise schedule.

unet.py              the denoiser of CIMD, guided diffusion's U-Net; layers.py is what it is made of
conv_unet.py         a U-Net of plain convolutions
gaussian_encoder.py  AMN and ACN, a Gaussian of (image, mask)
latent.py            low-dimensional distributions of an image
latent_pyramid.py    latents at several resolutions, and masks from them
low_rank_normal.py   a normal law of all logits of an image
experts.py           a gate over experts, and masks from one number
"""
