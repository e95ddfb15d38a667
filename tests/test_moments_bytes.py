"""Moments as bytes: one format on every machine, and whatever is not it is refused by name."""

from __future__ import annotations

import binascii
import copy
import pickle
import struct

import numpy as np
import pytest

import cases
import normkit

FIELDS = ("count", "mean", "m2", "min", "max")
SOME = normkit.Moments([2, 5], [1.0, 2.0], [0.5, 0.25], min=[0.5, 1.0], max=[1.5, 3.0])
HEADER = 8 + 8 + 8 + 8  # mark, version, number of axes, one extent

CLONES = {
    "bytes": lambda a: normkit.Moments.from_bytes(a.to_bytes()),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {p}": lambda a, p=p: pickle.loads(pickle.dumps(a, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,), (2, 0, 3)])
def test_clones(clone, shape):
    a = normkit.Moments(*(cases.random(shape, i).uniform(1, 2, shape) for i in range(3)))
    b = clone(a)
    assert b == a
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(b, name), getattr(a, name))
        assert getattr(b, name).shape == shape


@pytest.mark.parametrize("clone", CLONES.values(), ids=CLONES)
def test_clones_of_extremes(clone):
    """Every bit: zeros of either sign, subnormals, infinities, NaN; and the moments of nothing."""
    values = np.array([0.0, -0.0, 5e-324, 1.7e308, np.inf, -np.inf, np.nan])
    a = normkit.Moments(1, values, 0.0, values, values)
    b = clone(a)
    for name in FIELDS:
        assert getattr(b, name).tobytes() == getattr(a, name).tobytes(), name
    nothing = normkit.Moments([0, 0], 0.0, 0.0)
    assert clone(nothing) == nothing and float(clone(nothing).min[0]) == np.inf


def test_immutable_clones():
    b = pickle.loads(pickle.dumps(SOME))
    with pytest.raises(ValueError, match="read-only"):
        b.mean[0] = 7.0


VALUES = [value for one in zip(*(getattr(SOME, name) for name in FIELDS), strict=True) for value in one]


def by_hand(version=1, shape=(2,), values=VALUES, order="<"):
    """The format as documented, by other means."""
    data = b"nkmoment" + struct.pack(f"{order}QQ{len(shape)}q", version, len(shape), *shape)
    data += struct.pack(f"{order}{len(values)}d", *values)
    return data + struct.pack(f"{order}Q", binascii.crc32(data))


def test_format():
    """As documented: the bytes of today can be read tomorrow, and on a machine of either byte order."""
    assert SOME.to_bytes() == by_hand()
    assert normkit.Moments.from_bytes(by_hand()) == SOME
    assert normkit.Moments(3, 0.5, 0.25, 0.0, 1.0).to_bytes() == by_hand(shape=(), values=[3, 0.5, 0.25, 0.0, 1.0])


def refusal(data):
    with pytest.raises(ValueError, match=r"^Moments\.from_bytes: data must ") as caught:
        normkit.Moments.from_bytes(data)
    return str(caught.value)


@pytest.mark.parametrize("data", [b"", b"normkit", b"nkmomen", bytes(8), bytes(1000), pickle.dumps(SOME)])
def test_something_else(data):
    assert f"must be what to_bytes made; got {len(data)} bytes of something else" in refusal(data)


def test_incomplete():
    """Every prefix is, and the message says what is missing of the values."""
    data = SOME.to_bytes()
    for end in range(8, len(data)):
        message = refusal(data[:end])
        assert "data must be complete; got " in message
        values = f"{max(end - HEADER - 8, 0)} bytes of values, not 80 for shape (2,)"
        assert (f"{end} bytes, which end too early" if end < HEADER else values) in message


@pytest.mark.parametrize("more", [1, 8, 40])
def test_too_long(more):
    expected = f"must end where to_bytes ended; got {80 + more} bytes of values, not 80 for shape (2,)"
    assert expected in refusal(SOME.to_bytes() + bytes(more))


def test_damaged():
    """Any one bit: in the values and behind them by the checksum, before them by what it would mean."""
    data = SOME.to_bytes()
    for i in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[i // 8] ^= 1 << i % 8
        message = refusal(bytes(damaged))
        assert i // 8 < HEADER or "must be undamaged; got a checksum that does not fit" in message


@pytest.mark.parametrize(
    "shape, got",
    [((-1,), "got -1 for one of its extents"), ((2**62, 2), "for one of its extents"), ((1,) * 16, "got 16 for its")],
)
def test_impossible_shapes(shape, got):
    """Before anything is allocated for them."""
    message = refusal(by_hand(shape=shape))
    assert "must be undamaged" in message and got in message


@pytest.mark.parametrize("version", [0, 2, 2**40])
def test_other_versions(version):
    message = refusal(by_hand(version=version))
    assert f"must be of a version that this normkit reads, 1; got version {version}; a newer normkit" in message


def test_other_byte_order():
    assert "must be in the byte order of to_bytes; got the words of it in reverse order" in refusal(by_hand(order=">"))


@pytest.mark.parametrize(
    "values, named", [([-1, 0, 0, 0, 0], "count"), ([1, 0, -1, 0, 0], "m2"), ([2, 0, 1, 2, 1], "min")]
)
def test_impossible_values(values, named):
    """Well-formed bytes of what no data can have are refused like such arguments."""
    with pytest.raises(ValueError, match=f"^Moments: {named} "):
        normkit.Moments.from_bytes(by_hand(shape=(), values=values))


@pytest.mark.parametrize("data", [None, "nkmoment", 3, [1, 2]])
def test_not_bytes(data):
    with pytest.raises(TypeError):
        normkit.Moments.from_bytes(data)
