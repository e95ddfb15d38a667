"""
PyTorch's tensors "on a GPU", whose memory is the host's, for the extension whose GPU is the host too.

`pytest -p torch_on_gpu`: all tests of the run see them so. What DLPack's table of C functions says of a tensor is all
that the extension asks of where it lies.
"""

from __future__ import annotations

import ctypes
import types

import torch

from device_arrays import CUDA, Tensor, emulated_gpu, pointer_in

VIEW = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Tensor))
CURRENT_STREAM = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))
NAME = b"dlpack_exchange_api"
ATTRIBUTE = "__dlpack_c_exchange_api__"


class ExchangeApi(ctypes.Structure):
    """DLPack's table."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("previous", ctypes.c_void_p),
        ("allocate", ctypes.c_void_p),
        ("export_managed", ctypes.c_void_p),
        ("import_managed", ctypes.c_void_p),
        ("view", VIEW),
        ("current_stream", CURRENT_STREAM),
    ]


def capsule(table):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(ctypes.addressof(table), NAME, None)


# Of all tensors, but for those whose addresses are among `on_host`, and of the work on them.
PLACE = types.SimpleNamespace(index=0, stream=7, on_host=())


def put_on_gpu():
    """Return PyTorch's table with what it says of the device of a tensor, and of the stream, replaced."""
    own = ExchangeApi.from_address(pointer_in(getattr(torch.Tensor, ATTRIBUTE), NAME))
    table = ExchangeApi()
    ctypes.pointer(table)[0] = own
    table.previous = None

    def view(tensor, described):
        try:
            own.view(tensor, described)
        except Exception:  # of a sparse one, for example; nothing can be raised from here
            return -1
        if described[0].data not in PLACE.on_host:
            described[0].device, described[0].index = CUDA, PLACE.index
        return 0

    def current_stream(device, index, stream):
        assert (device, index) == (CUDA, PLACE.index)
        stream[0] = PLACE.stream
        return 0

    table.view, table.current_stream = VIEW(view), CURRENT_STREAM(current_stream)
    return table


TABLE = put_on_gpu()
setattr(torch.Tensor, ATTRIBUTE, capsule(TABLE))
assert emulated_gpu() is not None, "the extension has no emulated GPU (-DNORMKIT_EMULATED_CUDA=ON)"
