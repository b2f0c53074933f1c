"""The method once more in float64 NumPy, by the released code's names and layouts (NCHW).

Written from the papers' equations and sharing nothing with the package, so that tests have a second
opinion where the released code's own numbers are not at hand.
"""

import json

import numpy as np


def seeded_weights(seed, shapes):
    """The weights behind the released code's numbers: {name: float32 array} for {name: shape}."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name in sorted(shapes):
        w = rng.standard_normal(tuple(shapes[name]), dtype=np.float32)
        if w.ndim > 1:
            w /= np.sqrt(np.prod(w.shape[1:]), dtype=np.float32)
        elif name.endswith('weight'):
            w = 1 + np.float32(0.1) * w
        else:
            w = np.float32(0.1) * w
        weights[name] = w
    return weights


def shapes_in(fixture):
    """{name: shape} of a file of the released code's numbers."""
    return {str(n): json.loads(s) for n, s in zip(fixture['names'], fixture['shapes'], strict=True)}


def nhwc(x):
    return np.moveaxis(np.asarray(x, np.float32), 1, -1)


def nchw(x):
    return np.moveaxis(np.asarray(x, np.float64), -1, 1)


def relative_error(ours, theirs):
    """Largest error over the largest value."""
    theirs = np.asarray(theirs, np.float64)
    return np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()


def conv(x, weight, bias, stride=1):
    size = weight.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    y = np.einsum('bchwij,ocij->bohw', windows[:, :, ::stride, ::stride], weight, optimize=True)
    return y + bias[:, None, None]


def group_norm(x, weight, bias, groups=32):
    g = x.reshape(x.shape[0], groups, -1)
    g = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + 1e-5)
    return g.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def silu(x):
    return x / (1 + np.exp(-x))


def enlarge(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)


def shrink(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


class UNet:
    """The released U-Net; `used` collects the names of the weights it has read."""

    def __init__(self, weights, **options):
        self.weights, self.used = weights, set()
        self.options = {
            'num_heads': 1,
            'num_head_channels': -1,
            'num_heads_upsample': -1,
            'use_scale_shift_norm': False,
            'resblock_updown': False,
            'conv_resample': True,
            'use_new_attention_order': False,
        } | options

    def layer(self, name):
        self.used |= {f'{name}.weight', f'{name}.bias'}
        return [self.weights[f'{name}.{part}'].astype(np.float64) for part in ('weight', 'bias')]

    def dense(self, x, name):
        weight, bias = self.layer(name)
        return x @ weight.T + bias

    def block(self, x, name, embedding, change=None):
        h = silu(group_norm(x, *self.layer(f'{name}.in_layers.0')))
        if change:
            h, x = change(h), change(x)
        h = conv(h, *self.layer(f'{name}.in_layers.2'))
        e = self.dense(silu(embedding), f'{name}.emb_layers.1')[:, :, None, None]
        norm = self.layer(f'{name}.out_layers.0')
        if self.options['use_scale_shift_norm']:
            half = e.shape[1] // 2
            h = group_norm(h, *norm) * (1 + e[:, :half]) + e[:, half:]
        else:
            h = group_norm(h + e, *norm)
        h = conv(silu(h), *self.layer(f'{name}.out_layers.3'))
        if h.shape[1] != x.shape[1]:
            x = conv(x, *self.layer(f'{name}.skip_connection'))
        return x + h

    def attention(self, x, name, heads):
        batch, channels = x.shape[:2]
        if self.options['num_head_channels'] > 0:
            heads = channels // self.options['num_head_channels']
        weight, bias = self.layer(f'{name}.qkv')
        h = group_norm(x, *self.layer(f'{name}.norm')).reshape(batch, channels, -1)
        qkv = weight[..., 0] @ h + bias[:, None]
        if self.options['use_new_attention_order']:
            q, k, v = qkv.reshape(batch, 3, heads, channels // heads, -1).swapaxes(0, 1)
        else:
            q, k, v = np.moveaxis(qkv.reshape(batch, heads, 3, channels // heads, -1), 2, 0)
        scores = np.exp(q.swapaxes(-1, -2) @ k / np.sqrt(channels // heads))
        scores /= scores.sum(-1, keepdims=True)
        h = (v @ scores.swapaxes(-1, -2)).reshape(batch, channels, -1)
        weight, bias = self.layer(f'{name}.proj_out')
        return x + (weight[..., 0] @ h + bias[:, None]).reshape(x.shape)

    def resample(self, x, name, embedding, up):
        change = enlarge if up else shrink
        if self.options['resblock_updown']:
            return self.block(x, name, embedding, change)
        if not self.options['conv_resample']:
            return change(x)
        if up:
            return conv(enlarge(x), *self.layer(f'{name}.conv'))
        return conv(x, *self.layer(f'{name}.op'), stride=2)

    def __call__(self, x, t):
        o = self.options
        half = o['model_channels'] // 2
        angles = t[:, None] * 10_000.0 ** (-np.arange(half) / half)
        e = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        e = self.dense(silu(self.dense(e, 'time_embed.0')), 'time_embed.2')
        last = len(o['channel_mult']) - 1
        h = conv(x, *self.layer('input_blocks.0.0'))
        skips, i, factor = [h], 1, 1
        for level in range(last + 1):
            for _ in range(o['num_res_blocks']):
                h = self.block(h, f'input_blocks.{i}.0', e)
                if factor in o['attention_resolutions']:
                    h = self.attention(h, f'input_blocks.{i}.1', o['num_heads'])
                skips.append(h)
                i += 1
            if level < last:
                h = self.resample(h, f'input_blocks.{i}.0', e, up=False)
                skips.append(h)
                i, factor = i + 1, factor * 2
        h = self.block(h, 'middle_block.0', e)
        h = self.attention(h, 'middle_block.1', o['num_heads'])
        h = self.block(h, 'middle_block.2', e)
        heads = o['num_heads_upsample'] if o['num_heads_upsample'] > 0 else o['num_heads']
        i = 0
        for level in range(last, -1, -1):
            for number in range(o['num_res_blocks'] + 1):
                h = self.block(np.concatenate([h, skips.pop()], 1), f'output_blocks.{i}.0', e)
                part = 1
                if factor in o['attention_resolutions']:
                    h = self.attention(h, f'output_blocks.{i}.1', heads)
                    part = 2
                if level and number == o['num_res_blocks']:
                    h = self.resample(h, f'output_blocks.{i}.{part}', e, up=True)
                    factor //= 2
                i += 1
        return conv(silu(group_norm(h, *self.layer('out.0'))), *self.layer('out.2'))


def mean_pool_ceil(x):
    rows, columns = x.shape[2:]
    parts = [[x[:, :, r : r + 2, c : c + 2].mean((2, 3)) for c in range(0, columns, 2)] for r in range(0, rows, 2)]
    return np.moveaxis(np.array(parts), (0, 1), (2, 3))


def encoder(weights, image, mask):
    """(mu, log sigma) of the released axis-aligned Gaussian encoder."""
    h = np.concatenate([image, mask], axis=1)
    for index in (0, 2, 4, 7, 9, 11, 14, 16, 18, 21, 23, 25):
        if index in (7, 14, 21):
            h = mean_pool_ceil(h)
        name = f'encoder.layers.{index}'
        h = np.maximum(conv(h, weights[f'{name}.weight'], weights[f'{name}.bias']), 0)
    h = h.mean((2, 3)) @ weights['conv_layer.weight'][:, :, 0, 0].T + weights['conv_layer.bias']
    return np.split(h.astype(np.float64), 2, axis=1)


class Process:
    """The linear process in float64, its posterior by Bayes' rule instead of the closed formula."""

    def __init__(self, num_steps=1000):
        self.betas = np.linspace(0.1, 20, num_steps) / num_steps
        self.abar = np.cumprod(1 - self.betas)

    def at(self, table, t):
        return np.asarray(table)[t][:, None, None, None]

    def posterior(self, x0, xt, t):
        """Mean and variance of x_{t-1}: prior N(sqrt(abar_{t-1}) x0, ..), likelihood of xt given it."""
        prev = np.append(1, self.abar)[t][:, None, None, None]
        beta = self.at(self.betas, t)
        with np.errstate(divide='ignore'):
            variance = 1 / (1 / (1 - prev) + (1 - beta) / beta)
        gain = variance * np.sqrt(1 - beta) / beta
        mean = np.sqrt(prev) * x0 + gain * (xt - np.sqrt(1 - beta) * np.sqrt(prev) * x0)
        return mean, variance

    def losses(self, output, x0, xt, t, noise):
        """The hybrid loss's two parts, [B] each: mean squared error, and bound in bits a pixel."""
        eps, v = output[..., :1], output[..., 1:]
        abar = self.at(self.abar, t)
        guess = (xt - np.sqrt(1 - abar) * eps) / np.sqrt(abar)
        mean, variance = self.posterior(x0, xt, t)
        guessed, _ = self.posterior(guess, xt, t)
        floor = np.maximum(variance, self.posterior(x0[:1], xt[:1], np.array([1]))[1])
        log_p = (v + 1) / 2 * np.log(self.at(self.betas, t)) + (1 - v) / 2 * np.log(floor)
        kl = (log_p - np.log(floor) - 1 + (floor + (mean - guessed) ** 2) / np.exp(log_p)) / 2
        cdf = lambda z: (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2
        high = cdf((x0 - guessed + 1 / 255) / np.exp(log_p / 2))
        low = cdf((x0 - guessed - 1 / 255) / np.exp(log_p / 2))
        high, low = np.where(x0 > 0.999, 1, high), np.where(x0 < -0.999, 0, low)
        nll = -np.log(np.maximum(high - low, 1e-12))
        bits = np.where(self.at(np.arange(1000) == 0, t), nll, kl).mean((1, 2, 3)) / np.log(2)
        return ((noise - eps) ** 2).mean((1, 2, 3)), bits
