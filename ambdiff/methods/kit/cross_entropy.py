"""Cross-entropy by optax, imported when a loss is first computed: sampling needs none, and starts that much sooner."""

import jax

Array = jax.Array


def sigmoid(logits: Array, labels: Array) -> Array:
    """Of labels in [0, 1] under independent logits of the same shape [...]: [...]."""
    import optax

    return optax.sigmoid_binary_cross_entropy(logits, labels)


def softmax(logits: Array, labels: Array) -> Array:
    """Of labels [..., C] that sum to 1 under logits [..., C]: [...]."""
    import optax

    return optax.softmax_cross_entropy(logits, labels)
