"""A decoder with trained parameters: the loss on the answers of a pack, and its gradients by the parameters.

Only the places where an answer is predicted reach the vocabulary; the weights of the base do not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.models.gguf import Array
from agent.tuning.base_model import BaseModel
from agent.tuning.layers import (
    attention,
    attention_back,
    gated,
    gated_back,
    linear,
    linear_back,
    norm,
    norm_back,
    rotated,
)
from agent.tuning.learner import Parameters
from agent.tuning.packing import Pack


def logits(base: BaseModel, tuned: Parameters, pack: Pack) -> Array:
    """(n, vocabulary) scores of the next token at the places of `pack.outputs`."""
    run, x = _Pass(base, tuned, pack), tuned.embedded(base, pack.ids)
    for number in range(len(base.layers)):
        x = run.layer(number, x)[0]
    return _scores(base, x[pack.outputs])[0]


def answer_loss(base: BaseModel, tuned: Parameters, pack: Pack) -> float:
    """The sum over the pack's answer tokens of their negative log-likelihood, in nats."""
    return _loss(logits(base, tuned, pack), pack.targets)[0]


def add_gradients(base: BaseModel, tuned: Parameters, pack: Pack, weight: float, gradients: Parameters) -> float:
    """The pack's answer loss; its gradients times `weight` are added to `gradients`."""
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
    """What the derivative of a layer needs: its input, factors of norms, what was multiplied, low-rank parts."""

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
    low: dict[str, Array | None]


class _Pass:
    """A pack on its way through the layers and back; `turn`: cosine and sine of each position, (T, 1, head / 2)."""

    def __init__(self, base: BaseModel, tuned: Parameters, pack: Pack) -> None:
        self.base, self.tuned, self.pack, self.sizes = base, tuned, pack, base.architecture
        angles = pack.positions[:, None, None] * base.frequencies
        self.turn = np.cos(angles).astype(base.embedding.dtype), np.sin(angles).astype(base.embedding.dtype)

    def layer(self, number: int, x: Array) -> tuple[Array, _Trace]:
        layer, matrices, sizes = self.base.layers[number], self.tuned.layers[number], self.sizes
        low: dict[str, Array | None] = {}

        def mapped(name: str, value: Array) -> Array:
            y, low[name] = linear(value, layer.maps[name], layer.biases.get(name), matrices.get(name), self.tuned.scale)
            return y

        normed, factor = norm(x, layer.attn_norm, sizes.epsilon)
        q, k, v = (mapped(name, normed).reshape(len(x), -1, sizes.head) for name in ("attn_q", "attn_k", "attn_v"))
        q, k = rotated(q, *self.turn, sizes.neighbours), rotated(k, *self.turn, sizes.neighbours)
        read = attention(q, k, v, self.pack.prefix, self.pack.spans).reshape(len(x), -1)
        middle = x + mapped("attn_output", read)
        normed, middle_factor = norm(middle, layer.ffn_norm, sizes.epsilon)
        gate, up = mapped("ffn_gate", normed), mapped("ffn_up", normed)
        result = middle + mapped("ffn_down", gated(gate, up))
        return result, _Trace(x, factor, q, k, v, read, middle, middle_factor, gate, up, low)

    def layer_back(self, number: int, dy: Array, trace: _Trace, gradients: Parameters) -> Array:
        """The derivative by the layer's input; those by its adapter are added to `gradients`."""
        layer, matrices, added = self.base.layers[number], self.tuned.layers[number], gradients.layers[number]
        sizes, low, (cosine, sine) = self.sizes, trace.low, self.turn

        def mapped(name: str, derivative: Array, value: Array) -> Array:
            weight, lora, scale = layer.maps[name], matrices.get(name), self.tuned.scale
            return linear_back(derivative, value, low[name], weight, lora, added.get(name), scale)

        dgate, dup = gated_back(mapped("ffn_down", dy, gated(trace.gate, trace.up)), trace.gate, trace.up)
        normed = trace.middle * trace.middle_factor * layer.ffn_norm
        dnormed = mapped("ffn_gate", dgate, normed) + mapped("ffn_up", dup, normed)
        dmiddle = dy + norm_back(dnormed, trace.middle, trace.middle_factor, layer.ffn_norm)
        dread = mapped("attn_output", dmiddle, trace.read).reshape(trace.q.shape)
        dq, dk, dv = attention_back(dread, trace.q, trace.k, trace.v, self.pack.prefix, self.pack.spans)
        dq, dk = rotated(dq, cosine, -sine, sizes.neighbours), rotated(dk, cosine, -sine, sizes.neighbours)
        normed = trace.x * trace.factor * layer.attn_norm
        dnormed = np.zeros_like(normed)
        for name, derivative in (("attn_q", dq), ("attn_k", dk), ("attn_v", dv)):
            dnormed += mapped(name, derivative.reshape(len(dy), -1), normed)
        return dmiddle + norm_back(dnormed, trace.x, trace.factor, layer.attn_norm)


def _scores(base: BaseModel, x: Array) -> tuple[Array, Array]:
    normed, factor = norm(x, base.output_norm, base.architecture.epsilon)
    return normed @ base.output.T, factor


def _loss(scores: Array, targets: Array) -> tuple[float, Array]:
    """The sum of negative log-likelihoods, and its derivative by the scores."""
    rows = np.arange(len(targets))
    scores = scores - scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    total = shares.sum(axis=1, keepdims=True)
    loss = float((np.log(total[:, 0]) - scores[rows, targets]).sum(dtype=np.float64))
    shares /= total
    shares[rows, targets] -= 1
    return loss, shares
