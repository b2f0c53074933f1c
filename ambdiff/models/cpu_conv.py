"""The 3x3 convolution for training on CPUs.

XLA's CPU backend is slow at the WEIGHT gradient of a convolution. Here that gradient is three matrix products; forward
and backward pass together gain 1.0 to 1.3 times, most where inputs are wide (benchmarks/cpu_layers.py),

    dw[i, j] = sum_{b, y, x} x[b, y + i, x + j] (outer) g[b, y, x]        (x zero-padded by 1)

with the three columns j stacked on channels. Forward pass and input gradient are XLA's own.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def _conv(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def _shifted_products(a: Array, b: Array) -> Array:
    """sum over b, y, x of a[b, y + i, x + j] (outer) b[b, y, x]: -> [3, 3, Ca, Cb]."""
    _, height, width, ca = a.shape
    cb = b.shape[-1]
    padded = jnp.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
    columns = jnp.concatenate([padded[:, :, j : j + width] for j in range(3)], axis=-1)
    flat = b.reshape(-1, cb).T
    rows = [flat @ columns[:, i : i + height].reshape(-1, 3 * ca) for i in range(3)]
    return jnp.stack(rows).reshape(3, cb, 3, ca).transpose(0, 2, 3, 1)


@jax.custom_vjp
def conv3x3(x: Array, kernel: Array) -> Array:
    """Stride 1, zero padding 1: x [B, H, W, Cin], kernel [3, 3, Cin, Cout] -> [B, H, W, Cout].

    Reverse mode only, and of first order.
    """
    return _conv(x, kernel)


def _forward(x, kernel):
    return _conv(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    turned = lambda k: k[::-1, ::-1].transpose(0, 1, 3, 2)
    # The side with fewer channels is the one shifted and copied.
    if gradient.shape[-1] <= x.shape[-1]:
        kernel_gradient = turned(_shifted_products(gradient, x))
    else:
        kernel_gradient = _shifted_products(x, gradient)
    return _conv(gradient, turned(kernel)), kernel_gradient


conv3x3.defvjp(_forward, _backward)
