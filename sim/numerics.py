"""What the vector unit's operations compute, on plain float64 arrays; each is the textbook definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]

NORM_EPSILON = 1e-5
"""Added to the variance or mean square of a normalised row."""


def softmax(x: Values) -> Values:
    """exp(x - max) / sum over the last axis; a row must have an element above -inf."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    result: Values = powers / powers.sum(axis=-1, keepdims=True)
    return result


def layernorm(x: Values, gamma: Values, beta: Values) -> Values:
    """gamma (x - mean) / sqrt(var + eps) + beta over the last axis (Ba et al., arXiv:1607.06450)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    result: Values = gamma * (centred / np.sqrt(variance + NORM_EPSILON)) + beta
    return result


def rmsnorm(x: Values, gamma: Values) -> Values:
    """gamma x / sqrt(mean(x^2) + eps) over the last axis (Zhang and Sennrich, arXiv:1910.07467)."""
    result: Values = gamma * (x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + NORM_EPSILON))
    return result


def logistic(x: Values) -> Values:
    """1 / (1 + exp(-x)), written so that no exponential can overflow."""
    result: Values = 0.5 * (1 + np.tanh(x / 2))
    return result


def gelu(x: Values) -> Values:
    """x (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel, arXiv:1606.08415)."""
    erf = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    result: Values = x * 0.5 * (1 + erf)
    return result


def gelu_new(x: Values) -> Values:
    """GELU by tanh: x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 (GPT-2)."""
    result: Values = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return result


def rope(x: Values, angles: Values) -> Values:
    """x cos(angle) + rotate(x) sin(angle), head by head (Su et al., arXiv:2104.09864; halves as in LLaMA).

    `x` is [batch, tokens, heads * head_dim], `angles` [tokens, head_dim]; rotate(x) = (-second half, first
    half).
    """
    tokens, width = angles.shape
    heads = x.reshape(-1, tokens, x.shape[-1] // width, width)
    first, second = np.split(heads, 2, axis=-1)
    turned = np.concatenate([-second, first], axis=-1)
    angle = angles[:, None, :]
    result: Values = heads * np.cos(angle) + turned * np.sin(angle)
    return result.reshape(x.shape)


def causal(scores: Values, tokens: int) -> Values:
    """Scores [matrices, groups * tokens, context], -inf where a key comes after its query.

    The last query stands on the last key: query t sees the first context - tokens + t + 1 keys.
    """
    rows, context = scores.shape[-2:]
    query = np.arange(rows) % tokens + context - tokens
    hidden = np.arange(context) > query[:, None]
    return np.where(hidden, -np.inf, scores)


def masked(scores: Values, seen: npt.NDArray[np.bool_]) -> Values:
    """Scores [matrices, groups * tokens, context], -inf where `seen` [tokens, context] says so."""
    return np.where(np.tile(seen, (scores.shape[-2] // len(seen), 1)), scores, -np.inf)


def combine(function: Callable[[Values, Values], Values], first: Values, *others: Values) -> Values:
    """`function` folded over the operands, each broadcast to the first: along new or unit axes, or else by
    going through it again and again in memory order."""
    total = first
    for other in others:
        try:
            spread = np.broadcast_to(other, first.shape)
        except ValueError:
            spread = np.resize(other, first.shape)
        total = function(total, spread)
    return total


UNARY: Mapping[str, Callable[[Values], Values]] = MappingProxyType(
    {
        "relu": lambda x: np.maximum(x, 0),
        "tanh": np.tanh,
        "sigmoid": logistic,
        "gelu": gelu,
        "gelu_new": gelu_new,
        "quick_gelu": lambda x: x * logistic(1.702 * x),
        "silu": lambda x: x * logistic(x),
        "square": lambda x: x**2,
        "cube": lambda x: x**3,
        "sqrt": np.sqrt,
        "reciprocal": lambda x: 1 / x,
    }
)
"""Elementwise functions of one tensor."""

JOINING: Mapping[str, Callable[[Values, Values], Values]] = MappingProxyType(
    {
        "add": np.add,
        "multiply": np.multiply,
        "mean": lambda x, y: (x + y) * 0.5,
    }
)
"""Elementwise functions of two tensors or, folded from the left, more."""
