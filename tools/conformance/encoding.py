"""Python values and tensors as JSON and safetensors, and back."""
import math

import numpy as np
import torch

from common import DTYPE_NAMES, DTYPES, Skip, resolve

MAX_ELEMENTS = 200_000     # in any one tensor of a sample


def encode_float(x):
    if math.isnan(x):
        return {"float": "nan"}
    if math.isinf(x):
        return {"float": "inf" if x > 0 else "-inf"}
    return {"float": x}


class Encoder:
    """Collects the tensors of one sample and encodes Python values as JSON values."""

    def __init__(self, sample_id, limit=MAX_ELEMENTS):
        self.id = sample_id
        self.limit = limit
        self.tensors = {}

    def store(self, t, tag):
        """Put the logical values, row-major, under a key."""
        key = f"{self.id}/{tag}"
        assert key not in self.tensors, key
        self.tensors[key] = t.detach().clone(memory_format=torch.contiguous_format)
        return key

    def check(self, t):
        if type(t) not in (torch.Tensor, torch.nn.Parameter):
            raise Skip(f"tensor subclass {type(t).__name__}")
        if t.layout != torch.strided:
            raise Skip("sparse tensor")
        if t.is_complex():
            raise Skip("complex tensor")
        if t.device.type != "cpu":
            raise Skip(f"tensor on {t.device.type}")
        if t.dtype not in DTYPE_NAMES:
            raise Skip(f"dtype {t.dtype}".replace("torch.", ""))
        if t.is_conj() or t.is_neg():
            raise Skip("lazy conj/neg tensor")
        if any(n is not None for n in getattr(t, "names", ())):
            raise Skip("named dims")
        if t.numel() > self.limit:
            raise Skip("tensor too large")

    def tensor(self, t, tag):
        self.check(t)
        d = {"tensor": self.store(t, tag), "shape": list(t.shape), "dtype": DTYPE_NAMES[t.dtype]}
        if not t.is_contiguous():
            d["strides"] = list(t.stride())
        if t.storage_offset() and t.numel():
            d["offset"] = t.storage_offset()
        return d

    def value(self, v, path, index=False):
        if v is None or isinstance(v, (bool, str)):
            return v
        if isinstance(v, torch.Tensor):
            d = self.tensor(v, path)
            d["requires_grad"] = bool(v.requires_grad)
            return d
        if isinstance(v, np.generic):
            v = v.item()
            if isinstance(v, bool):
                return v
        if isinstance(v, int):
            return v
        if isinstance(v, float):
            return encode_float(v)
        if isinstance(v, complex):
            raise Skip("complex scalar")
        if index and isinstance(v, list):
            # x[[0, 2]]: a list is an index tensor, a tuple is one index a dimension.
            return self.value(torch.tensor(v), path)
        if isinstance(v, (list, tuple)) and type(v) in (list, tuple, torch.Size):
            return [self.value(x, f"{path}.{i}", index) for i, x in enumerate(v)]
        if isinstance(v, dict):
            return {"dict": {k: self.value(x, f"{path}.{k}") for k, x in v.items()}}
        if isinstance(v, torch.dtype):
            if v not in DTYPE_NAMES:
                raise Skip(f"dtype {v}".replace("torch.", ""))
            return {"dtype": DTYPE_NAMES[v]}
        if isinstance(v, torch.memory_format):
            return {"memory_format": str(v).replace("torch.", "")}
        if isinstance(v, slice):
            return {"slice": [v.start, v.stop, v.step]}
        if v is Ellipsis:
            return {"ellipsis": True}
        name = getattr(v, "__name__", "")
        if callable(v) and getattr(torch.nn.functional, name, None) is v:
            return {"function": "torch.nn.functional." + name}
        raise Skip(f"value of type {type(v).__name__}")

    def outputs(self, outs):
        encoded = []
        for i, o in enumerate(outs):
            if isinstance(o, torch.Tensor):
                self.check(o)
                shape, dtype = list(o.shape), DTYPE_NAMES[o.dtype]
                encoded.append({"tensor": self.store(o, f"out.{i}"), "shape": shape, "dtype": dtype})
            else:
                encoded.append(self.value(o, f"out.{i}"))
        return encoded

    def call(self, input, args, kwargs, index=False):
        if "out" in kwargs:
            raise Skip("out=")
        return {
            "input": self.value(input, "input"),
            "args": [self.value(a, f"args.{i}", index) for i, a in enumerate(args)],
            "kwargs": {k: self.value(v, f"kwargs.{k}") for k, v in kwargs.items()},
        }


def with_layout(values, strides=None, offset=0):
    """A tensor with the given values in the given strides and storage offset (overlap allowed)."""
    shape = values.shape
    if values.numel() == 0 or (strides is None and not offset):
        return values.clone(memory_format=torch.contiguous_format)
    if strides is None:
        strides, s = [], 1
        for n in reversed(shape):
            strides.insert(0, s)
            s *= n
    index = torch.full(shape, offset, dtype=torch.int64)
    for d, (n, s) in enumerate(zip(shape, strides)):
        view = [1] * len(shape)
        view[d] = n
        index = index + (torch.arange(n) * s).view(view)
    buf = torch.zeros(int(index.max()) + 1, dtype=values.dtype)
    buf[index.reshape(-1)] = values.reshape(-1)
    return buf.as_strided(shape, strides, offset)


class Decoder:
    """Rebuilds Python values; every tensor becomes a leaf of its own."""

    def __init__(self, tensors, upcast=False, jitter=None):
        self.tensors = tensors
        self.upcast = upcast     # float32 -> float64, to measure rounding error
        self.jitter = jitter     # a generator: also disturb the values by one float32 rounding
        self.leaves = {}         # path -> tensor that requires grad
        self.plain = {}          # path -> any other tensor

    def raw(self, key):
        return self.convert(self.tensors[key].clone())

    def convert(self, t):
        if not self.upcast or t is None or t.dtype != torch.float32:
            return t
        t = t.double()
        if self.jitter is not None:
            t = t * (1 + 2.0**-24 * torch.randn(t.shape, generator=self.jitter, dtype=t.dtype))
        return t

    def value(self, v, path):
        if v is None or isinstance(v, (bool, int, str)):
            return v
        if isinstance(v, list):
            return [self.value(x, f"{path}.{i}") for i, x in enumerate(v)]
        assert isinstance(v, dict), v
        if "tensor" in v:
            t = self.raw(v["tensor"])
            assert list(t.shape) == v["shape"], (path, t.shape, v)
            t = with_layout(t, v.get("strides"), v.get("offset", 0)).detach()
            if v.get("requires_grad"):
                t.requires_grad_()
                self.leaves[path] = t
            else:
                self.plain[path] = t
            return t
        if "float" in v:
            return float(v["float"])
        if "dict" in v:
            return {k: self.value(x, f"{path}.{k}") for k, x in v["dict"].items()}
        if "dtype" in v:
            d = DTYPES[v["dtype"]]
            return torch.float64 if self.upcast and d == torch.float32 else d
        if "memory_format" in v:
            return getattr(torch, v["memory_format"])
        if "slice" in v:
            return slice(*v["slice"])
        if "ellipsis" in v:
            return Ellipsis
        if "function" in v:
            return resolve(v["function"])
        raise ValueError(f"unknown encoding {v}")

    def call(self, enc):
        input = self.value(enc["input"], "input")
        args = [self.value(a, f"args.{i}") for i, a in enumerate(enc["args"])]
        kwargs = {k: self.value(v, f"kwargs.{k}") for k, v in enc["kwargs"].items()}
        return input, args, kwargs
