"""A decoder in numpy: forward pass, loss, and gradients of LoRA adapters and soft prompts.

Only the positions that predict an answer reach the vocabulary; the base weights stay fixed. Arrays have the type of the
weights (float32; float64 in gradient tests). T is the number of tokens of a pack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from agent.models.gguf import Array
from agent.training.base_model import BaseModel
from agent.training.parameters import Parameters
from agent.training.rows import Pack

Spans = tuple[tuple[int, int], ...]


def norm(x: Array, weight: Array, epsilon: float) -> tuple[Array, Array]:
    """Divide x by its root mean square, times `weight`; also return the factor (T, 1).

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.
    """
    factor = 1 / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + x.dtype.type(epsilon))
    return x * factor * weight, factor


def norm_back(dy: Array, x: Array, factor: Array, weight: Array) -> Array:
    g = dy * weight
    along = np.mean(g * x, axis=1, keepdims=True)
    return factor * (g - x * (factor * factor * along))  # type: ignore[no-any-return]


def rotated(x: Array, cosine: Array, sine: Array, interleaved: bool) -> Array:
    """Apply rotary position encoding to x (T, heads, head). -sine inverts it and gives its derivative.

    Source: Su et al., "RoFormer" (2021), equation 34.
    """
    half = x.shape[2] // 2
    one, two = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
    turned = np.empty_like(x)
    turned[..., one] = x[..., one] * cosine - x[..., two] * sine
    turned[..., two] = x[..., one] * sine + x[..., two] * cosine
    return turned


def attention(q: Array, k: Array, v: Array, prefix: int, spans: Spans) -> Array:
    """Compute grouped-query attention (T, heads, head). A token sees the prefix and its predecessors in the row.

    Source: Vaswani et al. (2017), equation 1; Ainslie et al., "GQA" (2023), section 2.2.
    """
    read = np.empty_like(q)
    for start, end in _with_prefix(prefix, spans):
        share = _shares(_grouped(q[start:end], k), _seen(k, prefix, start, end), end - start)
        read[start:end] = _ungrouped(share @ _seen(v, prefix, start, end), end - start)
    return read


def attention_back(dread: Array, q: Array, k: Array, v: Array, prefix: int, spans: Spans) -> tuple[Array, Array, Array]:
    """Return the derivatives by q, k and v.

    Attention weights are recomputed, because storing them would take memory quadratic in T.
    """
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
    scores = (queries * (1 / math.sqrt(keys.shape[2]))) @ keys.transpose(0, 2, 1)
    own = scores.reshape(scores.shape[0], -1, size, keys.shape[1])[..., -size:]
    own += np.triu(np.full((size, size), -np.inf, queries.dtype), 1)
    scores -= scores.max(axis=2, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=2, keepdims=True)
    return scores


def gated(gate: Array, up: Array) -> Array:
    """Return SiLU(gate) times up. Source: Shazeer, "GLU Variants Improve Transformer" (2020), equation 6."""
    return gate * _sigmoid(gate) * up


def gated_back(dy: Array, gate: Array, up: Array) -> tuple[Array, Array]:
    part = _sigmoid(gate)
    silu = gate * part
    return dy * up * (part + silu * (1 - part)), dy * silu


def _with_prefix(prefix: int, spans: Spans) -> Spans:
    return ((0, prefix), *spans) if prefix else spans


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))  # does not overflow


def _grouped(x: Array, k: Array) -> Array:
    tokens, _, head = x.shape
    kv_heads = k.shape[1]
    return x.reshape(tokens, kv_heads, -1, head).transpose(1, 2, 0, 3).reshape(kv_heads, -1, head)


def _ungrouped(x: Array, tokens: int) -> Array:
    kv_heads, _, head = x.shape
    return x.reshape(kv_heads, -1, tokens, head).transpose(2, 0, 1, 3).reshape(tokens, -1, head)


def _seen(x: Array, prefix: int, start: int, end: int) -> Array:
    seen = x[:end] if start < prefix else np.concatenate([x[:prefix], x[start:end]])
    return np.ascontiguousarray(seen.transpose(1, 0, 2))


def _add(total: Array, part: Array, prefix: int, start: int, end: int) -> None:
    part = part.transpose(1, 0, 2)
    if start < prefix:
        total[:end] += part
    else:
        total[:prefix] += part[:prefix]
        total[start:end] += part[prefix:]


def logits(base: BaseModel, tuned: Parameters, pack: Pack) -> Array:
    """Return (n, vocabulary) scores of the next token at `pack.outputs`."""
    run, x = _Pass(base, tuned, pack), tuned.embedded(base, pack.ids)
    for number in range(len(base.layers)):
        x = run.layer(number, x)[0]
    return _scores(base, x[pack.outputs])[0]


def answer_loss(base: BaseModel, tuned: Parameters, pack: Pack) -> float:
    """Return the summed negative log-likelihood of the pack's answer tokens, in nats."""
    return _loss(logits(base, tuned, pack), pack.targets)[0]


def add_gradients(base: BaseModel, tuned: Parameters, pack: Pack, weight: float, gradients: Parameters) -> float:
    """Return the pack's answer loss; add its gradients times `weight` to `gradients`."""
    run, x = _Pass(base, tuned, pack), tuned.embedded(base, pack.ids)
    traces = []
    for number in range(len(base.layers)):
        x, trace = run.layer(number, x)
        traces.append(trace)
    last = x[pack.outputs]
    scores, factor = _scores(base, last)
    loss, dscores = _loss(scores, pack.targets)
    dscores *= weight
    dx = np.zeros_like(x)
    dx[pack.outputs] = norm_back(dscores @ base.output, last, factor, base.output_norm)
    for number in reversed(range(len(base.layers))):
        dx = run.layer_back(number, dx, traces.pop(), gradients)
    gradients.add_embedded(dx, pack.ids)
    return loss


@dataclass(frozen=True, slots=True)
class _Trace:
    """Intermediate values of a layer that its derivative needs."""

    x: Array
    factor: Array
    q: Array
    k: Array
    v: Array
    read: Array
    middle: Array
    middle_factor: Array
    gate: Array
    up: Array
    low: dict[str, Array]


class _Pass:
    """A pack's pass through the layers; `turn`: cosine and sine per position, (T, 1, head / 2)."""

    def __init__(self, base: BaseModel, tuned: Parameters, pack: Pack) -> None:
        self.base, self.tuned, self.pack, self.sizes = base, tuned, pack, base.architecture
        angles = pack.positions[:, None, None] * base.frequencies
        self.turn = np.cos(angles).astype(base.embedding.dtype), np.sin(angles).astype(base.embedding.dtype)

    def layer(self, number: int, x: Array) -> tuple[Array, _Trace]:
        layer, matrices, sizes = self.base.layers[number], self.tuned.layers[number], self.sizes
        low: dict[str, Array] = {}

        def mapped(name: str, value: Array) -> Array:
            """Compute x W' + scale (x A') B' + bias. Source: Hu et al. (2021), equation 3."""
            y = value @ layer.maps[name].T
            if name in matrices:
                a, b = matrices[name]
                low[name] = value @ a.T
                y += (low[name] * self.tuned.scale) @ b.T
            if name in layer.biases:
                y += layer.biases[name]
            return y

        normed, factor = norm(x, layer.attn_norm, sizes.epsilon)
        q, k, v = (mapped(name, normed).reshape(len(x), -1, sizes.head) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = rotated(q, *self.turn, sizes.interleaved), rotated(k, *self.turn, sizes.interleaved)
        read = attention(q, k, v, self.pack.prefix, self.pack.spans).reshape(len(x), -1)
        middle = x + mapped("attn_output", read)
        normed, middle_factor = norm(middle, layer.ffn_norm, sizes.epsilon)
        gate, up = mapped("ffn_gate", normed), mapped("ffn_up", normed)
        result = middle + mapped("ffn_down", gated(gate, up))
        return result, _Trace(x, factor, q, k, v, read, middle, middle_factor, gate, up, low)

    def layer_back(self, number: int, dy: Array, trace: _Trace, gradients: Parameters) -> Array:
        """Return the derivative by the layer's input; add those by its adapter to `gradients`."""
        layer, matrices, added = self.base.layers[number], self.tuned.layers[number], gradients.layers[number]
        sizes, low, (cosine, sine) = self.sizes, trace.low, self.turn

        def mapped(name: str, derivative: Array, value: Array) -> Array:
            dx: Array = derivative @ layer.maps[name]
            if name in matrices:
                a, b = matrices[name]
                scaled = derivative * self.tuned.scale
                dlow = scaled @ b
                added[name][0][:] += dlow.T @ value
                added[name][1][:] += scaled.T @ low[name]
                dx += dlow @ a
            return dx

        dgate, dup = gated_back(mapped("ffn_down", dy, gated(trace.gate, trace.up)), trace.gate, trace.up)
        normed = trace.middle * trace.middle_factor * layer.ffn_norm
        dnormed = mapped("ffn_gate", dgate, normed) + mapped("ffn_up", dup, normed)
        dmiddle = dy + norm_back(dnormed, trace.middle, trace.middle_factor, layer.ffn_norm)
        dread = mapped("attn_output", dmiddle, trace.read).reshape(trace.q.shape)
        dq, dk, dv = attention_back(dread, trace.q, trace.k, trace.v, self.pack.prefix, self.pack.spans)
        dq, dk = rotated(dq, cosine, -sine, sizes.interleaved), rotated(dk, cosine, -sine, sizes.interleaved)
        normed = trace.x * trace.factor * layer.attn_norm
        dnormed = np.zeros_like(normed)
        for name, derivative in (("attn_q", dq), ("attn_k", dk), ("attn_v", dv)):
            dnormed += mapped(name, derivative.reshape(len(dy), -1), normed)
        return dmiddle + norm_back(dnormed, trace.x, trace.factor, layer.attn_norm)


def _scores(base: BaseModel, x: Array) -> tuple[Array, Array]:
    normed, factor = norm(x, base.output_norm, base.architecture.epsilon)
    return normed @ base.output.T, factor


def _loss(scores: Array, targets: Array) -> tuple[float, Array]:
    rows = np.arange(len(targets))
    scores = scores - scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    total = shares.sum(axis=1, keepdims=True)
    loss = float((np.log(total[:, 0]) - scores[rows, targets]).sum(dtype=np.float64))
    shares /= total
    shares[rows, targets] -= 1
    return loss, shares
