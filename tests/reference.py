"""Parts of a Transformer written out in numpy, one query at a time: what blocks are checked against."""

from math import erf, pi

import numpy as np


def rms(x, weight, eps=1e-6):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def layer(x, weight=1.0, bias=0.0, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def gelu(x):
    return np.vectorize(lambda v: v * (1 + erf(v / 2**0.5)) / 2)(x)


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh((2 / pi) ** 0.5 * (x + 0.044715 * x**3)))


def turned(x, theta=10000.0, size=0):
    """Rotary embedding of [b, s, head, k]: element j turns with element j + half."""
    size = size or x.shape[-1]
    half = size // 2
    result = x.copy()
    for s in range(x.shape[1]):
        for j in range(half):
            angle = s * theta ** (-2 * j / size)
            first, second = x[:, s, :, j], x[:, s, :, j + half]
            result[:, s, :, j] = first * np.cos(angle) - second * np.sin(angle)
            result[:, s, :, j + half] = second * np.cos(angle) + first * np.sin(angle)
    return result


def attended(q, k, v, factor, cap=0.0, window=0, slopes=None, sinks=None):
    """Causal attention, one query at a time; q is [b, s, heads, k], k and v may have fewer heads."""
    batch, length, heads, _ = q.shape
    result = np.zeros((batch, length, heads, v.shape[-1]))
    for b in range(batch):
        for h in range(heads):
            key_head = h * k.shape[2] // heads
            for s in range(length):
                first = max(0, s - window + 1) if window else 0
                scores = np.array([factor * q[b, s, h] @ k[b, t, key_head] for t in range(first, s + 1)])
                scores = cap * np.tanh(scores / cap) if cap else scores
                if slopes is not None:
                    scores = scores - slopes[h] * (s - np.arange(first, s + 1))
                weights = np.exp(scores - scores.max())
                weights /= weights.sum() + (0.0 if sinks is None else np.exp(sinks[h] - scores.max()))
                result[b, s, h] = sum(w * v[b, t, key_head] for w, t in zip(weights, range(first, s + 1), strict=True))
    return result


def heads_of(x, weight, size, bias=0.0):
    """x times a weight of any head axes, as [b, s, heads, k]."""
    made = x @ weight.reshape(x.shape[-1], -1) + np.ravel(bias)
    return made.reshape(*x.shape[:2], -1, size)


def joined(x, weight):
    return x.reshape(*x.shape[:2], -1) @ weight.reshape(-1, weight.shape[-1])


def silu(x):
    return x / (1 + np.exp(-x))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swiglu_mlp(x, gate, up, down):
    return (silu(x @ gate) * (x @ up)) @ down
