"""A small convolutional network in NumPy, to try normkit's layers in.

All layers here speak like normkit's: a call, `backward`, `parameters()`, `gradients()`, `zero_grad()`, `train()`; so a
network is a list of them, in any mixture. Images are N x H x W x C: channels last, where im2col copies whole runs of
channels and a convolution is one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from normkit.layers import Layer

Array = np.ndarray[Any, np.dtype[np.float32]]


def patches(x: Array) -> Array:
    """Return the 3 x 3 surroundings of each pixel, zero beyond the edges, as the rows of a matrix (im2col)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # N H W C 3 3
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[-1])


class Module:
    """A layer with or without parameters: what normkit's layers bring along."""

    def __init__(self, **parameters: Array) -> None:
        self._parameters = parameters
        self.zero_grad()

    def __call__(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        raise NotImplementedError

    def parameters(self) -> dict[str, Array]:
        return self._parameters

    def gradients(self) -> dict[str, Array | None]:
        return self._gradients

    def zero_grad(self) -> None:
        self._gradients: dict[str, Array | None] = dict.fromkeys(self._parameters)

    def train(self, mode: bool = True) -> Module:
        return self

    def _add(self, **gradients: Array) -> None:
        for name, gradient in gradients.items():
            before = self._gradients[name]
            self._gradients[name] = gradient if before is None else before + gradient


class Linear(Module):
    """x @ weight + bias, drawn after He et al. 2015: made for the relu that follows."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator) -> None:
        weight = rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
        super().__init__(weight=weight, bias=np.zeros(outputs, np.float32))

    def __call__(self, x: Array) -> Array:
        self.x = x
        return x @ self._parameters["weight"] + self._parameters["bias"]

    def backward(self, dy: Array) -> Array:
        self._add(weight=self.x.T @ dy, bias=dy.sum(axis=0))
        return dy @ self._parameters["weight"].T


class Convolution(Linear):
    """3 x 3, padded with zeros to keep the size: a linear map of each pixel's surroundings."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator, *, first: bool = False) -> None:
        super().__init__(9 * inputs, outputs, rng)
        self.inputs, self.first = inputs, first

    def __call__(self, x: Array) -> Array:
        return super().__call__(patches(x)).reshape(*x.shape[:3], -1)

    def backward(self, dy: Array) -> Array:
        rows = dy.reshape(-1, dy.shape[-1])
        self._add(weight=self.x.T @ rows, bias=rows.sum(axis=0))
        if self.first:
            return dy  # nobody asks for the gradient of the images
        # The gradient of a convolution is one with the kernel turned round, its inputs and outputs exchanged.
        kernel = self._parameters["weight"].reshape(3, 3, self.inputs, -1)[::-1, ::-1].swapaxes(2, 3)
        return (patches(dy) @ kernel.reshape(-1, self.inputs)).reshape(*dy.shape[:3], self.inputs)


class Relu(Module):
    def __call__(self, x: Array) -> Array:
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, dy: Array) -> Array:
        return dy * (self.y > 0)


class AveragePool(Module):
    """The mean of each square of `size` x `size` pixels."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __call__(self, x: Array) -> Array:
        n, h, w, c = x.shape
        return x.reshape(n, h // self.size, self.size, w // self.size, self.size, c).mean(axis=(2, 4))

    def backward(self, dy: Array) -> Array:
        return (dy / self.size**2).repeat(self.size, axis=1).repeat(self.size, axis=2)


class Flatten(Module):
    def __call__(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: Array) -> Array:
        return dy.reshape(self.shape)


class Network:
    """Layers one after the other, trained by gradient descent with momentum on the cross entropy."""

    def __init__(self, layers: Sequence[Module | Layer]) -> None:
        self.layers = layers
        self.velocity: dict[tuple[int, str], Array] = {}

    def __call__(self, x: Array, **options: bool) -> Array:
        """Return the logits; `options` go to normkit's layers."""
        for layer in self.layers:
            x = layer(x, **options) if isinstance(layer, Layer) else layer(x)
        return x

    def train(self, mode: bool = True) -> Network:
        for layer in self.layers:
            layer.train(mode)
        return self

    def step(self, x: Array, labels: np.ndarray, rate: float, momentum: float = 0.9) -> float:
        """Train on one batch, and return its loss."""
        logits = self(x)
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        totals = exponentials.sum(axis=1)
        rows = np.arange(len(x))
        loss = float((np.log(totals) - logits[rows, labels]).mean())
        gradient = exponentials / totals[:, None]
        gradient[rows, labels] -= 1
        gradient /= len(x)
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient)
        for key, parameter, change in self.changes():
            velocity = self.velocity.setdefault(key, np.zeros_like(parameter))
            velocity *= momentum
            velocity -= rate * change
            parameter += velocity
        return loss

    def changes(self) -> Iterator[tuple[tuple[int, str], Array, Array]]:
        """Yield a name, each parameter and its gradient, which is then forgotten."""
        for number, layer in enumerate(self.layers):
            gradients = layer.gradients()
            for name, parameter in layer.parameters().items():
                gradient = gradients[name]
                assert gradient is not None
                yield (number, name), parameter, gradient
            layer.zero_grad()
