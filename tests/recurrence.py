"""The gated delta rule on numpy arrays, token by token, and its gradients."""

import numpy as np

EPS = 1e-6


def unit(x):
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + EPS)


def unit_backward(g, x):
    root = np.sqrt((x * x).sum(-1, keepdims=True) + EPS)
    return g / root - x * (g * x).sum(-1, keepdims=True) / root**3


def steps(queries, keys, values, decay, rate):
    """States before and after each token, and what each reads; the sequence is the second axis of every array."""
    q, k = unit(queries) / queries.shape[-1] ** 0.5, unit(keys)
    state = np.zeros((*k[:, 0].shape, values.shape[-1]))
    before, after, read = [], [], []
    for s in range(values.shape[1]):
        before.append(state)
        forgotten = np.exp(-decay[:, s])[..., None, None] * state
        known = np.einsum("...k,...ku->...u", k[:, s], forgotten)
        change = rate[:, s][..., None] * (values[:, s] - known)
        state = forgotten + k[:, s][..., None] * change[..., None, :]
        after.append(state)
        read.append(np.einsum("...k,...ku->...u", q[:, s], state))
    return before, after, np.stack(read, 1)


def delta_rule(inputs, axes, made, options, context):
    return (steps(*inputs)[2],)


def delta_rule_backward(inputs, axes, made, options, context):
    queries, keys, values, decay, rate, g = inputs
    before, after, _ = steps(queries, keys, values, decay, rate)
    q, k = unit(queries) / queries.shape[-1] ** 0.5, unit(keys)
    results = d_q, d_k, d_v, d_decay, d_rate = [np.zeros_like(array) for array in inputs[:5]]
    d_state = np.zeros_like(before[0])
    for s in reversed(range(values.shape[1])):
        kept = np.exp(-decay[:, s])[..., None, None]
        forgotten = kept * before[s]
        missing = values[:, s] - np.einsum("...k,...ku->...u", k[:, s], forgotten)
        change = rate[:, s][..., None] * missing
        d_q[:, s] = np.einsum("...ku,...u->...k", after[s], g[:, s])
        d_state = d_state + q[:, s][..., None] * g[:, s][..., None, :]
        d_change = np.einsum("...k,...ku->...u", k[:, s], d_state)
        d_rate[:, s] = (d_change * missing).sum(-1)
        d_v[:, s] = rate[:, s][..., None] * d_change
        d_k[:, s] = np.einsum("...ku,...u->...k", d_state, change) - np.einsum("...ku,...u->...k", forgotten, d_v[:, s])
        d_state = d_state - k[:, s][..., None] * d_v[:, s][..., None, :]
        d_decay[:, s] = -(d_state * forgotten).sum((-2, -1))
        d_state = kept * d_state
    d_q[:] = unit_backward(d_q / queries.shape[-1] ** 0.5, queries)
    d_k[:] = unit_backward(d_k, keys)
    return tuple(results)
