"""Integer-only softmax, GELU and layer norm: what they compute.

Kim et al., "I-BERT: Integer-only BERT Quantization", arXiv:2101.01321, algorithms 1 to 4, with the constants
and word widths of their code (also in Hugging Face Transformers, `models/ibert/quant_modules.py`). A real
number is q S: an integer q and a scale S that is known before the data. Only the scales are floating-point;
every operation on data is an integer's.
"""

from __future__ import annotations

from math import floor, frexp, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.int64]

_LN2, _SHIFTS = 0.6931, 30
_EXP = 0.35815147, 0.96963238 / 0.35815147, 1 / 0.35815147
_ERF = -0.2888, -1.769, 1 / -0.2888
_SQRT2, _ERF_SHIFT = 1.4142, 14
_EXP_BITS, _WORD = 16, 32


def softmax(q: ArrayLike, scale: float, bits: int = 8) -> tuple[Integers, float]:
    """Softmax over the last axis of q `scale`, in numbers of `bits` bits whose scale is 2^-bits.

    Exponentials are rescaled to 16 bits before they are summed. Raises ValueError as `exponential` does.
    """
    exact = np.asarray(q, dtype=np.int64)
    powers, _ = exponential(exact - exact.max(axis=-1, keepdims=True), scale)
    largest, _ = exponential(0, scale)
    powers = rescale(powers, (2 ** (_EXP_BITS - 1) - 1) / int(largest))
    factor = 2**_WORD // powers.sum(axis=-1, keepdims=True)
    return (powers * factor) >> (_WORD - bits), 2.0**-bits


def exponential(q: ArrayLike, scale: float) -> tuple[Integers, float]:
    """i-exp: exp of q `scale` <= 0, as 2^-z times a polynomial on (-ln 2, 0]; arguments end at -30 ln 2.

    Raises ValueError if `scale` is under 2e-5, as results would not fit into 64 bits.
    """
    if scale < 2e-5:
        raise ValueError(f"a scale of {scale:g} is too fine for exponentials of 64 bits; take 2e-5 or more")
    step = floor(-_LN2 / scale)
    a, b, c = _EXP[0], floor(_EXP[1] / scale), floor(_EXP[2] / scale**2)
    z, rest = np.divmod(np.maximum(np.asarray(q, dtype=np.int64), _SHIFTS * step), step)
    value = ((rest + b) * rest + c) << (_SHIFTS - z)
    return np.maximum(value, 0), a * scale**2 / 2**_SHIFTS


def gelu(q: ArrayLike, scale: float) -> tuple[Integers, float]:
    """i-GELU: x (1 + erf(x / sqrt 2)) / 2 of x = q `scale`, erf as a clipped polynomial times a sign."""
    exact = np.asarray(q, dtype=np.int64)
    inner = scale / _SQRT2
    b, c = floor(_ERF[1] / inner), floor(_ERF[2] / inner**2)
    erf = (np.sign(exact) * ((np.minimum(np.abs(exact), -b) + b) ** 2 + c)) >> _ERF_SHIFT
    outer = inner**2 * _ERF[0] * 2**_ERF_SHIFT
    return exact * (erf + floor(1 / outer)), scale * outer / 2


def layernorm(q: ArrayLike, gamma: NDArray[np.float64], beta: NDArray[np.float64]) -> Integers:
    """gamma (x - mean) / std + beta over the last axis, as integers of scale gamma sqrt(n) / 2^30.

    The input's scale cancels. The squares of a row must add up to less than 2^63, and a row of equal numbers
    has no answer (ValueError).
    """
    exact = np.asarray(q, dtype=np.int64)
    centred = exact - np.rint(exact.mean(axis=-1, keepdims=True)).astype(np.int64)
    deviation = square_root((centred**2).sum(axis=-1, keepdims=True))
    if not deviation.all():
        raise ValueError("a row of equal numbers has no deviation to divide by")
    offset = np.floor(beta / gamma / (sqrt(exact.shape[-1]) / 2**30)).astype(np.int64)
    return np.asarray(((centred * (2**31 // deviation)) >> 1) + offset)


def square_root(n: Integers) -> Integers:
    """i-sqrt: floor of the root of integers >= 0, by Newton's iteration from a power of two above it."""
    bits = np.frexp(n.astype(np.float64))[1]
    root: Integers = np.left_shift(1, (bits + 1) // 2, dtype=np.int64)
    while True:
        lower = (root + n // np.maximum(root, 1)) >> 1
        if (lower >= root).all():
            return root
        root = np.minimum(root, lower)


def rescale(q: Integers, ratio: float) -> Integers:
    """q `ratio`, rounded to even: one multiplication by a 31-bit number and a shift (dyadic arithmetic)."""
    mantissa, exponent = frexp(ratio)
    product = q.astype(np.float64) * floor(mantissa * 2**31 + 0.5)
    return np.rint(product / 2.0 ** (31 - exponent)).astype(np.int64)
