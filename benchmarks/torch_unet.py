"""The denoiser of ambdiff/models/unet.py in PyTorch, as one would write it there: NCHW, fused attention.

Modules are named so that `ambdiff.released.layout` maps parameters one to one; benchmarks/against_torch.py loads ours
into it, and so knows that both compute the same.
"""

import math

import torch
from torch import nn
from torch.nn import functional


def timestep_embedding(t, dim):
    """Steps [B] -> [B, dim], cosines first."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies[None]
    return functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, dim % 2))


def space_to_depth(x, size):
    """[B, C, H, W] -> [B, size * size * C, H / size, W / size], channels innermost."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(batch, -1, height // size, width // size)


def depth_to_space(x, size):
    """The inverse of `space_to_depth`."""
    batch, _, height, width = x.shape
    x = x.reshape(batch, size, size, -1, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(batch, -1, height * size, width * size)


class _ResBlock(nn.Module):
    def __init__(self, channels, features, embedding, groups, scale_shift):
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(groups, channels), nn.SiLU(), nn.Conv2d(channels, features, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, features * (2 if scale_shift else 1)))
        norm, conv = nn.GroupNorm(groups, features), nn.Conv2d(features, features, 3, padding=1)
        self.out_layers = nn.Sequential(norm, nn.SiLU(), nn.Identity(), conv)
        self.skip_connection = nn.Identity() if channels == features else nn.Conv2d(channels, features, 1)

    def forward(self, x, embedding):
        h = self.in_layers(x)
        emb = self.emb_layers(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + emb)
        return self.skip_connection(x) + h


class _SelfAttention(nn.Module):
    def __init__(self, channels, heads, groups):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x, _):
        batch, channels = x.shape[:2]
        qkv = self.qkv(self.norm(x).reshape(batch, channels, -1))
        qkv = qkv.reshape(batch, self.heads, 3, channels // self.heads, -1).transpose(-1, -2)
        h = functional.scaled_dot_product_attention(*qkv.unbind(2)).transpose(-1, -2).reshape(batch, channels, -1)
        return x + self.proj_out(h).reshape(x.shape)


class _Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, _):
        return self.op(x)


class _Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, _):
        return self.conv(functional.interpolate(x, scale_factor=2, mode='nearest'))


class _First(nn.Conv2d):
    """The convolution of the input; like every part of a block it is given the embedding, and leaves it."""

    def forward(self, x, _=None):
        return super().forward(x)


class UNet(nn.Module):
    """As config.model says: learned resampling between levels, one head count, no dropout."""

    def __init__(self, model, in_channels, out_channels):
        super().__init__()
        self.width, self.patch, groups = model.channels, model.patch_size, model.num_groups
        features = [int(mult * self.width) for mult in model.channel_mult]
        embedding, last = 4 * self.width, len(features) - 1
        block = lambda wide, to: _ResBlock(wide, to, embedding, groups, model.use_scale_shift_norm)
        attention = lambda wide: _SelfAttention(wide, model.num_heads, groups)
        self.time_embed = nn.Sequential(nn.Linear(self.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

        h = features[0]
        self.input_blocks = nn.ModuleList([nn.ModuleList([_First(in_channels * self.patch**2, h, 3, padding=1)])])
        skips = [h]
        for level, wide in enumerate(features):
            attends = 2**level in model.attention_resolutions
            for _ in range(model.num_res_blocks):
                self.input_blocks.append(nn.ModuleList([block(h, wide), *([attention(wide)] if attends else [])]))
                skips.append(h := wide)
            if level != last:
                self.input_blocks.append(nn.ModuleList([_Downsample(h)]))
                skips.append(h)
        self.middle_block = nn.ModuleList([block(h, h), attention(h), block(h, h)])
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            wide, attends = features[level], 2**level in model.attention_resolutions
            for number in range(model.num_res_blocks + 1):
                parts = [block(h + skips.pop(), wide), *([attention(wide)] if attends else [])]
                if level and number == model.num_res_blocks:
                    parts.append(_Upsample(wide))
                self.output_blocks.append(nn.ModuleList(parts))
                h = wide
        final = nn.Conv2d(h, out_channels * self.patch**2, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(groups, h), nn.SiLU(), final)

    def forward(self, x, t):
        """x [B, C, H, W] and steps t [B] -> [B, out_channels, H, W]."""
        embedding = self.time_embed(timestep_embedding(t, self.width))
        h, skips = space_to_depth(x, self.patch), []
        for parts in self.input_blocks:
            for part in parts:
                h = part(h, embedding)
            skips.append(h)
        for part in self.middle_block:
            h = part(h, embedding)
        for parts in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            for part in parts:
                h = part(h, embedding)
        return depth_to_space(self.out(h), self.patch)
