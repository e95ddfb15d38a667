"""NIST's reference data for univariate statistics (StRD), and how many digits of an answer are right.

Values and certified statistics are exact decimals. Five sets follow a published rule; the others are in data/strd.txt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "data" / "strd.txt"
CAP = 15.0  # digits that the certified statistics are given to
WIDE = Context(prec=60)
Statistics = tuple[float | Fraction, float | Decimal]  # mean and standard deviation of divisor n - 1


@dataclass(frozen=True)
class Set:
    """Values in their order, and what NIST certifies of them; the standard deviation has divisor n - 1."""

    name: str
    values: tuple[Decimal, ...]
    mean: Decimal
    std: Decimal
    autocorrelation: Decimal

    def array(self, dtype: type = np.float64) -> np.ndarray:
        """Return the values, rounded to `dtype`."""
        return np.array([float(value) for value in self.values]).astype(dtype)


def _digits_of_pi(count: int) -> Iterator[Decimal]:
    """Machin's formula, in integers: pi = 16 arctan(1/5) - 4 arctan(1/239)."""
    one = 10 ** (count + 10)

    def arctan(divisor: int) -> int:
        power = total = one // divisor
        for n in range(3, 3 * count, 2):
            power //= -divisor * divisor
            total += power // n
        return total

    return map(Decimal, str(Decimal(16 * arctan(5) - 4 * arctan(239)))[:count])


def _pi_as_published() -> list[Decimal]:
    """Its 957th digit is an 8: NIST's data have a 3 there, which the certified statistics are of."""
    digits = list(_digits_of_pi(5000))
    digits[956] = Decimal(3)
    return digits


def _alternating(first: str, low: str, high: str) -> list[Decimal]:
    return [Decimal(first)] + [Decimal(low), Decimal(high)] * 500


RULES = {
    "PiDigits 4.53480000000000 2.86733906028871 -0.00355099287237972": _pi_as_published(),
    "NumAcc1 10000002 1 -0.5": [Decimal(10000000 + i) for i in (1, 3, 2)],
    "NumAcc2 1.2 0.1 -0.999": _alternating("1.2", "1.1", "1.3"),
    "NumAcc3 1000000.2 0.1 -0.999": _alternating("1000000.2", "1000000.1", "1000000.3"),
    "NumAcc4 10000000.2 0.1 -0.999": _alternating("10000000.2", "10000000.1", "10000000.3"),
}


def _set(head: str, values: Iterable[Decimal]) -> Set:
    name, *certified = head.split()
    return Set(name, tuple(values), *map(Decimal, certified))


def _read() -> Iterator[Set]:
    for paragraph in FILE.read_text().split("\n\n")[1:]:
        head, *lines = paragraph.splitlines()
        yield _set(head, (Decimal(value) for line in lines for value in line.split()))


SETS = {own.name: own for own in (*_read(), *(_set(head, values) for head, values in RULES.items()))}


def exact(values: Sequence[Decimal | float]) -> tuple[Fraction, Decimal]:
    """Return the mean and, to 60 digits, the standard deviation of these very values."""
    fractions = [Fraction(value) for value in values]
    mean = sum(fractions) / len(fractions)
    variance = sum((value - mean) ** 2 for value in fractions) / (len(fractions) - 1)
    return mean, WIDE.sqrt(WIDE.divide(Decimal(variance.numerator), Decimal(variance.denominator)))


def autocorrelation(values: Sequence[Decimal]) -> Fraction:
    """Return the correlation of each value with its successor, as NIST defines it: it depends on the order."""
    fractions = [Fraction(value) for value in values]
    mean = sum(fractions) / len(fractions)
    d = [value - mean for value in fractions]
    return sum(a * b for a, b in pairwise(d)) / sum(a * a for a in d)


def digits(actual: float | Fraction | Decimal, expected: Decimal | Fraction) -> float:
    """Return the log relative error -log10(|actual - expected| / |expected|), about the number of right digits.

    Between 0 and 15. Of an expected 0, 15 for exactly that and 0 for anything else.
    """
    if not math.isfinite(actual):
        return 0.0
    error, size = abs(Fraction(actual) - Fraction(expected)), abs(Fraction(expected))
    if error == 0 or size == 0:
        return CAP if error == 0 else 0.0
    return min(max(0.0, -math.log10(error / size)), CAP)
