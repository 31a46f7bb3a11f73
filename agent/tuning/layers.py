"""The parts of a decoder's layer, each with its derivative: linear map with adapter, norm, rotation, attention, gate.

Arrays have the type of the weights (float32; the tests of gradients use float64). T is the number of tokens of a pack.
"""

from __future__ import annotations

import math

import numpy as np

from agent.models.gguf import Array

Matrices = tuple["Array", "Array"]
"""A (rank, inputs) and B (outputs, rank) of an adapter, or their gradients."""


def linear(
    x: Array, weight: Array, bias: Array | None, lora: Matrices | None, scale: float
) -> tuple[Array, Array | None]:
    """x W' + scale (x A') B' + bias, and the low-rank part x A', which the derivative needs; None without an adapter.

    Args:
        x: (T, inputs).
        weight: (outputs, inputs).
        bias: (outputs,), or None.

    Source: Hu et al. (2021), equation 3.
    """
    low, y = None, x @ weight.T
    if lora is not None:
        a, b = lora
        low = x @ a.T
        y += (low * scale) @ b.T
    if bias is not None:
        y += bias
    return y, low


def linear_back(
    dy: Array,
    x: Array,
    low: Array | None,
    weight: Array,
    lora: Matrices | None,
    gradients: Matrices | None,
    scale: float,
) -> Array:
    """The derivative by x; those by A and B are added to `gradients`."""
    if lora is None or gradients is None or low is None:
        return dy @ weight
    a, b = lora
    scaled = dy * scale
    dlow = scaled @ b
    gradients[0][:] += dlow.T @ x
    gradients[1][:] += scaled.T @ low
    dx: Array = dy @ weight
    dx += dlow @ a
    return dx


def norm(x: Array, weight: Array, epsilon: float) -> tuple[Array, Array]:
    """x over its root mean square, times `weight`; and the factor (T, 1) that the derivative needs.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.
    """
    factor = 1 / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + x.dtype.type(epsilon))
    return x * factor * weight, factor


def norm_back(dy: Array, x: Array, factor: Array, weight: Array) -> Array:
    g = dy * weight
    along = np.mean(g * x, axis=1, keepdims=True)
    return factor * (g - x * (factor * factor * along))  # type: ignore[no-any-return]


def rotated(x: Array, cosine: Array, sine: Array, neighbours: bool) -> Array:
    """Positions encoded by rotation, pair by pair; with -sine it is undone, which is its derivative, too.

    Args:
        x: (T, heads, head).
        cosine: (T, 1, head / 2), as `sine`.
        neighbours: the pairs are (2i, 2i + 1); otherwise (i, i + head / 2).

    Source: Su et al., "RoFormer" (2021), equation 34.
    """
    half = x.shape[2] // 2
    one, two = (slice(0, None, 2), slice(1, None, 2)) if neighbours else (slice(0, half), slice(half, None))
    turned = np.empty_like(x)
    turned[..., one] = x[..., one] * cosine - x[..., two] * sine
    turned[..., two] = x[..., one] * sine + x[..., two] * cosine
    return turned


def attention(q: Array, k: Array, v: Array, prefix: int, spans: Spans) -> Array:
    """Grouped-query attention of a pack: each row's own tokens see the prefix and those before them in the row.

    Args:
        q: (T, heads, head).
        k: (T, kv heads, head), as `v`.

    Returns:
        What was read, (T, heads, head).

    Source: Vaswani et al. (2017), equation 1; Ainslie et al., "GQA" (2023), section 2.2.
    """
    read = np.empty_like(q)
    for start, end in _with_prefix(prefix, spans):
        share = _shares(_grouped(q[start:end], k), _seen(k, prefix, start, end), end - start)
        read[start:end] = _ungrouped(share @ _seen(v, prefix, start, end), end - start)
    return read


def attention_back(dread: Array, q: Array, k: Array, v: Array, prefix: int, spans: Spans) -> tuple[Array, Array, Array]:
    """The derivatives by q, k and v. The shares are computed again: kept, they would grow with the square of T."""
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    for start, end in _with_prefix(prefix, spans):
        queries, keys, values = _grouped(q[start:end], k), _seen(k, prefix, start, end), _seen(v, prefix, start, end)
        share = _shares(queries, keys, end - start)
        given = _grouped(dread[start:end], k)
        dshare = given @ values.transpose(0, 2, 1)
        dshare -= (dshare * share).sum(axis=2, keepdims=True)
        dshare *= share
        dshare *= 1 / math.sqrt(q.shape[2])
        dq[start:end] = _ungrouped(dshare @ keys, end - start)
        _add(dk, dshare.transpose(0, 2, 1) @ queries, prefix, start, end)
        _add(dv, share.transpose(0, 2, 1) @ given, prefix, start, end)
    return dq, dk, dv


def _shares(queries: Array, keys: Array, size: int) -> Array:
    """What part each of the last `size` tokens gives to those that it sees, (kv heads, heads x size, seen)."""
    scores = (queries * (1 / math.sqrt(keys.shape[2]))) @ keys.transpose(0, 2, 1)
    own = scores.reshape(scores.shape[0], -1, size, keys.shape[1])[..., -size:]
    own += np.triu(np.full((size, size), -np.inf, queries.dtype), 1)
    scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=2, keepdims=True)
    return scores


def gated(gate: Array, up: Array) -> Array:
    """SiLU(gate) times up. Source: Shazeer, "GLU Variants Improve Transformer" (2020), equation 6."""
    return gate * _sigmoid(gate) * up


def gated_back(dy: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    part = _sigmoid(gate)
    silu = gate * part
    return dy * up * (part + silu * (1 - part)), dy * silu


Spans = tuple[tuple[int, int], ...]


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow


def _with_prefix(prefix: int, spans: Spans) -> Spans:
    return ((0, prefix), *spans) if prefix else spans


def _grouped(x: Array, k: Array) -> Array:
    """(tokens, heads, head) as (kv heads, heads a kv head x tokens, head)."""
    tokens, _, head = x.shape
    kv_heads = k.shape[1]
    return x.reshape(tokens, kv_heads, -1, head).transpose(1, 2, 0, 3).reshape(kv_heads, -1, head)


def _ungrouped(x: Array, tokens: int) -> Array:
    kv_heads, _, head = x.shape
    return x.reshape(kv_heads, -1, tokens, head).transpose(2, 0, 1, 3).reshape(tokens, -1, head)


def _seen(x: Array, prefix: int, start: int, end: int) -> Array:
    """The keys or values that a span sees, (kv heads, tokens, head)."""
    seen = x[:end] if start < prefix else np.concatenate([x[:prefix], x[start:end]])
    return np.ascontiguousarray(seen.transpose(1, 0, 2))


def _add(total: Array, part: Array, prefix: int, start: int, end: int) -> None:
    part = part.transpose(1, 0, 2)
    if start < prefix:
        total[:end] += part
    else:
        total[:prefix] += part[:prefix]
        total[start:end] += part[prefix:]
