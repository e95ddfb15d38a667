"""Two libraries of arrays "on a GPU", whose memory is the host's, for the extension whose GPU is the host too.

`streams` is like CuPy: its arrays can be written, and it says which stream its work is queued on now. `frozen` is like
JAX: neither, but it takes memory of others for arrays.
"""

from __future__ import annotations

import contextlib
import ctypes
import types

import ml_dtypes
import numpy as np

import normkit._core

CPU, CUDA = 1, 2
UNSIGNED, BRAIN = 1, 4  # DLPack's codes of types
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Record(ctypes.Structure):
    """What the emulated GPU has done."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ["launches", "stream", "device", "allocations", "waits_for_stream", "waits_for_device", "refusals"]
    ]


def emulated_gpu():
    """Return the record of the extension's GPU, or None where that is none of ours."""
    library = ctypes.CDLL(normkit._core.__file__)
    if not hasattr(library, "normkit_emulated_gpu"):
        return None
    library.normkit_emulated_gpu.restype = ctypes.POINTER(Record)
    return library.normkit_emulated_gpu().contents


class Tensor(ctypes.Structure):
    """DLPack's, up to where its strides are."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("index", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    ]


def pointer_in(capsule, name):
    """Return the address that a capsule of this name holds."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get_pointer(capsule, name)


def tensor_in(capsule):
    """Return the description in a capsule, to be read and changed."""
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    name = get_name(capsule)
    before = 32 if name == b"dltensor_versioned" else 0
    return Tensor.from_address(pointer_in(capsule, name) + before)


class Array:
    """An array of a library on its GPU number `index`; `host` is what it would be on the host."""

    def __init__(self, library, host, index=0):
        self.library, self.memory, self.index = library, np.array(host, copy=None), index

    @property
    def dtype(self):
        return self.memory.dtype

    @property
    def host(self):
        return self.memory.copy(order="K")

    @property
    def device(self):
        return self.index

    def __array_namespace__(self):
        return self.library

    def __dlpack_device__(self):
        return CUDA, self.index

    def __dlpack__(self, *, stream=None, max_version=None):
        self.library.asked.append(stream)
        bits = self.memory.view(np.uint16) if self.dtype == BFLOAT16 else self.memory
        capsule = bits.__dlpack__(max_version=max_version)
        tensor = tensor_in(capsule)
        tensor.device, tensor.index = CUDA, self.index
        if self.dtype == BFLOAT16:
            tensor.code = BRAIN
        return capsule


def poisoned(like):
    """Fill an array with what is no number, as memory that nobody has written yet."""
    like.fill(np.nan)
    return like


class Library(types.SimpleNamespace):
    """What both have in common: a namespace of functions, and a list of the streams that exports were asked for."""

    def __init__(self):
        super().__init__(asked=[])

    def put(self, host, index=0):
        return Array(self, np.array(host, order="K"), index)


class Streams(Library):
    """Like CuPy: new arrays are on the current GPU."""

    def __init__(self):
        super().__init__()
        self.current = 0
        self.stream = 0
        self.cuda = types.SimpleNamespace(get_current_stream=self.get_current_stream, Device=self.on_device)

    def get_current_stream(self, device_id=-1):
        assert device_id in (-1, 0, 1)
        return types.SimpleNamespace(ptr=self.stream)

    @contextlib.contextmanager
    def on_device(self, index):
        before, self.current = self.current, index
        try:
            yield
        finally:
            self.current = before

    def asarray(self, host):
        return self.put(host, self.current)

    def empty_like(self, array):
        return Array(self, poisoned(np.empty_like(array.memory)), self.current)

    def empty(self, shape, dtype):
        return Array(self, poisoned(np.empty(shape, dtype)), self.current)


class Imported:
    """Memory of the GPU as NumPy can look at it, for as long as it lives."""

    def __init__(self, exporter):
        device, self.index = exporter.__dlpack_device__()
        assert device == CUDA
        self.capsule = exporter.__dlpack__(stream=2)
        tensor = tensor_in(self.capsule)
        assert (tensor.device, tensor.index) == (CUDA, self.index)
        tensor.device, tensor.index = CPU, 0
        self.is_brain = tensor.code == BRAIN
        if self.is_brain:
            tensor.code = UNSIGNED

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, **_):
        return self.capsule


class Frozen(Library):
    """Like JAX."""

    def put(self, host, index=0):
        array = super().put(host, index)
        array.memory.flags.writeable = False
        return array

    def asarray(self, host, device):
        return self.put(host, device)

    def from_dlpack(self, exporter):
        imported = Imported(exporter)
        memory = np.from_dlpack(imported)
        return Array(self, memory.view(BFLOAT16) if imported.is_brain else memory, imported.index)


streams, frozen = Streams(), Frozen()
