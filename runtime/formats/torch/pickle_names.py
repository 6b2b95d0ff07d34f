"""The names that a pickled tensor file may use, and what stands for each here. Nothing of them is imported.

A `Token` is all that a name becomes. "Calling" one is `call`: a fixed table from names to functions of this
module that build plain records, so that a pickle can describe tensors and do nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...fault import Fault
from ...files.dtypes import DTYPE_OF_STORAGE
from ...files.window import ITEM_BYTES, MOST_AXES


@dataclass(frozen=True, slots=True)
class Token:
    """A name from the allow-list."""

    name: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value that is no tensor and whose content is of no interest."""

    name: str


@dataclass(eq=False, slots=True)
class Stray:
    """A name that is not on the list, or what a pickle makes with it. It is never imported, called or looked up.

    `items` are the keys and values that the pickle gives it, as it would a dict of another class; `args` and `state` what
    it is made from and its attributes.
    """

    name: str
    items: dict[Any, Any] = field(default_factory=dict)
    args: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A record of the archive: `data/<key>`, of `nbytes` bytes. `dtype` is None for untyped bytes."""

    key: str
    dtype: str | None
    nbytes: int


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as its pickle describes it; `offset` and `strides` in elements. Not yet checked against a record."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


@dataclass(slots=True)
class Reference:
    """A tensor that lies in a file of its own, number `tid` of its folder. -1 until the pickle has said it."""

    tid: int = -1

    def point(self, state: Any) -> None:
        """Takes the attributes that the pickle gives it."""
        if not isinstance(state, dict) or set(state) != {"tid"}:
            raise Malformed("a reference to a tensor without its number")
        self.tid = _natural(state["tid"])


class Size(tuple[int, ...]):
    """A torch.Size."""

    __slots__ = ()


class Malformed(Exception):
    """The pickle does not say what such a pickle says."""


REFERENCE = "torch_xla.utils.serialization.TensorReference"
_BUILTIN = ("set", "frozenset", "dict", "list", "tuple", "int", "float", "complex", "bool", "str", "bytes", "bytearray")
_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")
_UNTYPED = ("torch.UntypedStorage", "torch.storage.UntypedStorage")
_SUBSCRIPT = 1 << 63


def token(module: str, name: str) -> Token | Stray:
    """The stand-in of `module.name`, which is another where the name is not on the list."""
    full = f"{'builtins' if module == '__builtin__' else module}.{name}"
    if full in _CALLS or full in _CLASSES or full in _UNTYPED or _storage_dtype(full) or _is_dtype(module, name):
        return Token(full)
    return Stray(full)


def unsafe(name: str, file: str) -> Fault:
    return Fault(
        "unsafe-pickle",
        f"the pickle in `{file}` asks for `{name}`, which a file of plain tensors has no need of",
        notes=("nothing was imported or run",),
        help="save the tensors alone: torch.save({name: tensor, ...}, path)",
    )


def call(function: Any, args: Any) -> Any:
    """What `function(*args)` stands for."""
    if isinstance(function, Stray):
        return Stray(function.name, args=args if isinstance(args, tuple) else ())
    if not isinstance(function, Token) or not isinstance(args, tuple):
        raise Malformed("a call of something that is not a function")
    make = _CALLS.get(function.name)
    if make is None:
        raise Malformed(f"a call of `{function.name}`")
    return make(function.name, args)


def storage(identity: Any) -> StorageRef:
    """The record that a persistent id names: ("storage", class, key, location, numel)."""
    if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
        raise Malformed("a persistent id that is not a storage")
    _, kind, key, _, numel = identity
    if not isinstance(kind, Token) or not isinstance(key, str):
        raise Malformed("a storage without class or key")
    dtype = _storage_dtype(kind.name)
    if dtype is None and kind.name not in _UNTYPED:
        raise Malformed(f"a storage of class `{kind.name}`")
    return StorageRef(key, dtype, _natural(numel) * (ITEM_BYTES[dtype] if dtype else 1))


def _tensor(name: str, args: tuple[Any, ...]) -> TensorRef:
    """_rebuild_tensor(storage, offset, size, stride), _v2(..., requires_grad, hooks[, metadata]), _v3(..., dtype)."""
    if len(args) < 4 or not isinstance(args[0], StorageRef):
        raise Malformed(f"`{name}` without a storage")
    record, offset, shape, strides = args[:4]
    dtype, metadata = record.dtype, args[6] if len(args) > 6 else None
    if name.endswith("_v3"):
        kind, metadata = args[6] if len(args) > 6 else None, args[7] if len(args) > 7 else None
        if not isinstance(kind, Token) or not kind.name.startswith("torch."):
            raise Malformed(f"`{name}` without a dtype")
        dtype = kind.name.removeprefix("torch.")
    if dtype is None or dtype not in ITEM_BYTES:
        raise Malformed(f"a tensor of dtype {dtype}")
    if isinstance(metadata, dict) and (metadata.get("conj") or metadata.get("neg")):
        raise Malformed("a conjugated or negated view (save it after .resolve_conj().resolve_neg())")
    shape, strides = _naturals(shape), _naturals(strides)
    if len(shape) != len(strides):
        raise Malformed("a tensor with more sizes than strides, or fewer")
    return TensorRef(record, _natural(offset), shape, strides, dtype)


def _inner(name: str, args: tuple[Any, ...]) -> TensorRef:
    """_rebuild_parameter(tensor, requires_grad, hooks[, state])."""
    if not args or not isinstance(args[0], TensorRef):
        raise Malformed(f"`{name}` without a tensor")
    return args[0]


def _of_type(name: str, args: tuple[Any, ...]) -> TensorRef:
    """_rebuild_from_type_v2(function, class, args, state), for plain tensors and parameters alone."""
    if len(args) != 4 or args[1] not in [Token(each) for each in _CLASSES]:
        raise Malformed(f"`{name}` of a class that is not a plain tensor")
    made = call(args[0], args[2])
    if not isinstance(made, TensorRef):
        raise Malformed(f"`{name}` without a tensor")
    return made


def _dict(name: str, args: tuple[Any, ...]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    if args:
        if len(args) != 1 or not isinstance(args[0], (list, tuple)):
            raise Malformed(f"`{name}` of something that is not a list of pairs")
        for pair in args[0]:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise Malformed(f"`{name}` of something that is not a list of pairs")
            put(made, *pair)
    return made


def _size(name: str, args: tuple[Any, ...]) -> Size:
    return Size(_naturals(args[0]) if args else ())


def _reference(name: str, args: tuple[Any, ...]) -> Reference:
    """TensorReference(): its number follows as its state. TensorReference(tid) is taken as well."""
    return Reference(*map(_natural, args[:1]))


def _opaque(name: str, args: tuple[Any, ...]) -> Opaque:
    return Opaque(name)


_CALLS: dict[str, Callable[[str, tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _inner,
    "torch._utils._rebuild_parameter_with_state": _inner,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": _size,
    REFERENCE: _reference,
    "torch.device": _opaque,
    "torch.serialization._get_layout": _opaque,
    "_codecs.encode": _opaque,
    "collections.OrderedDict": _dict,
    **{f"builtins.{name}": _opaque for name in _BUILTIN},
    "builtins.dict": _dict,
}


def put(target: dict[Any, Any], key: Any, value: Any) -> None:
    """`target[key] = value`, for keys whose hash is cheap; a tensor is never replaced."""
    if not isinstance(key, (str, int, float, bytes, type(None), Stray)):
        raise Malformed("a key that is neither text nor number")
    if key in target and (isinstance(value, TensorRef) or isinstance(target[key], TensorRef)):
        raise Fault("duplicate-tensor", f"`{key!s:.200}` occurs twice in one pickle")
    target[key] = value


def _storage_dtype(full: str) -> str | None:
    for prefix in ("torch.", "torch.cuda."):
        if full.startswith(prefix) and full.removeprefix(prefix) in DTYPE_OF_STORAGE:
            return DTYPE_OF_STORAGE[full.removeprefix(prefix)]
    return None


def _is_dtype(module: str, name: str) -> bool:
    return module == "torch" and name in ITEM_BYTES


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _SUBSCRIPT:
        raise Malformed("a size, stride or offset that is not a whole number of at least 0")
    return value


def _naturals(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > MOST_AXES:
        raise Malformed("sizes or strides that are not a short list")
    return tuple(_natural(value) for value in values)
