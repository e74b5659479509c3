"""Reads pickled data without executing any of it.

Only globals on a list are accepted, and none of them is imported: classes become `Record`s with the stored state, and
NumPy arrays are rebuilt from their bytes without NumPy's own unpickling.
Why not a library: allow-lists such as `torch.load(weights_only=True)` instantiate the listed classes, and a MANO file
refers to classes of chumpy and scipy, which would have to be installed and run.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from fasthamer.one_line import one_line

LARGEST = 10_000_000  # values, each part counted as often as it is referred to
_PLAIN_DTYPE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|[SU]\d{1,4}|O8?)")


class Record:
    """Replaces an object of the file: holds the arguments of its constructor and its state; neither is executed."""

    module = name = ""
    args: tuple
    state: Any

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def loads(data: bytes, records: Iterable[str] = (), source: str = "pickle") -> Any:
    """The plain data of a pickle: containers, numbers, text, NumPy arrays, and `Record`s of the listed classes.

    Args:
        data: the pickle; Python 2 text is decoded as latin1.
        records: dotted names of the classes that are accepted, as `Record`s.
        source: name of the file in errors.

    Raises:
        ValueError: a global that is not listed (the message names it), or damaged data.
    """
    try:
        content = _resolve(_Unpickler(data, frozenset(records)).load(), {})
        _measure(content, {})
        return content
    except _RefusedError as error:
        raise ValueError(f"{source}: refused, since {one_line(error)}; only plain data is read from pickles") from None
    except Exception as error:  # a damaged stream can raise any exception
        raise ValueError(f"{source}: not a readable pickle ({type(error).__name__}: {one_line(error)})") from None


class _RefusedError(Exception):
    pass


# The Python implementation: in the C one, a damaged file can allocate any amount of memory.
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_PythonUnpickler):
    dispatch: ClassVar = dict(_PythonUnpickler.dispatch)

    def __init__(self, data: bytes, records: frozenset[str]) -> None:
        self.source = io.BytesIO(data)
        super().__init__(self.source, encoding="latin1")
        self.records = records

    def load(self) -> Any:
        """The base class's loop, reading from memory: a third faster, for datasets of many small files.

        Frames are ignored: they only mark how much to buffer from a slow file.
        """
        self.read, self.readline, self.readinto = self.source.read, self.source.readline, self.source.readinto
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append, self.proto = self.stack.append, 0
        read, dispatch = self.read, self.dispatch
        try:
            while True:
                key = read(1)
                if not key:
                    raise EOFError("cut short")
                dispatch[key[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]
            return stop.value

    def load_frame(self) -> None:
        self.read(8)

    dispatch[pickle.FRAME[0]] = load_frame

    def find_class(self, module: str, name: str) -> Any:
        dotted = f"{module}.{name}"
        if dotted in _KNOWN:
            return _KNOWN[dotted]
        if dotted in self.records:
            return type(name, (Record,), {"module": module, "name": name})
        raise _RefusedError(f"it refers to {dotted}")

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("it refers to objects outside the file")

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], Record | _Array | _Dtype):  # it could modify one of our functions
            raise _RefusedError(f"it sets the state of a {type(self.stack[-2]).__name__}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        """Reads before it allocates: the stated size may be any."""
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(min(size, 1 << 62))))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    dispatch[pickle.DICT[0]] = load_dict

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()

    dispatch[pickle.FROZENSET[0]] = load_frozenset


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise _RefusedError(f"it holds an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A NumPy array as pickled: created empty, then filled with shape, type and bytes (or a list of objects)."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None
        self.items: list | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, payload = state
        self.shape, self.fortran = tuple(shape), bool(fortran)
        if dtype.dtype.hasobject:
            self.items = list(payload)
        else:
            self.array = _from_bytes(payload, dtype, self.shape, "F" if fortran else "C")

    def value(self, memo: dict[int, Any]) -> np.ndarray:
        if self.items is not None:
            flat = np.empty(len(self.items), dtype=object)
            for i, item in enumerate(self.items):
                flat[i] = _resolve(item, memo)
            return flat.reshape(self.shape, order="F" if self.fortran else "C")
        if self.array is None:
            raise ValueError("an array without content")
        return self.array


def _from_bytes(payload: Any, dtype: _Dtype, shape: tuple, order: str = "C") -> np.ndarray:
    raw = payload.encode("latin1") if isinstance(payload, str) else bytes(payload)
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order).copy()  # type: ignore[call-overload]


def _scalar(dtype: _Dtype, payload: Any) -> Any:
    return _from_bytes(payload, dtype, ())[()]


def _frombuffer(payload: Any, dtype: _Dtype, shape: tuple, order: str = "C") -> np.ndarray:
    return _from_bytes(payload, dtype, shape, order)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as Python 3 pickles them in protocols that have only text."""
    if encoding != "latin1":
        raise _RefusedError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuses keys that are no plain values: the hash of 60 tuples, each twice in the next, takes 2**60 steps."""
    for key in keys:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(isinstance(part, str | bytes | int | float | None) for part in parts):
            raise _RefusedError(f"it has a {type(key).__name__} as a key")


def _set(items: Any = ()) -> set:
    _check_keys(items)
    return set(items)


_KNOWN: dict[str, Callable[..., Any]] = {
    "__builtin__.set": _set,
    "builtins.set": _set,
    "_codecs.encode": _encode,
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Array,
}
for _module in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_module}.multiarray._reconstruct"] = _Array
    _KNOWN[f"{_module}.multiarray.scalar"] = _scalar
    _KNOWN[f"{_module}.numeric._frombuffer"] = _frombuffer


def _resolve(item: Any, memo: dict[int, Any]) -> Any:
    """The tree with every `_Array` in it replaced by its array; shared parts stay shared."""
    if not isinstance(item, dict | list | tuple | Record | _Array):
        return item
    if id(item) in memo:
        return memo[id(item)][1]
    resolved: Any
    if isinstance(item, _Array):
        resolved = item.value(memo)
    elif isinstance(item, dict):
        resolved = {key: _resolve(value, memo) for key, value in item.items()}
    elif isinstance(item, Record):
        item.args, item.state = _resolve(item.args, memo), _resolve(item.state, memo)
        resolved = item
    else:
        resolved = type(item)(_resolve(value, memo) for value in item)
    memo[id(item)] = (item, resolved)  # with the item, so that its id is not reused
    return resolved


def _measure(item: Any, known: dict[int, int | None]) -> int:
    """How many values an item stands for; refuses what is too large, or contains itself, to be worked through.

    A list that is twice in the next, and so on 60 times, is a small file, and an array of it would fill any memory.
    """
    if isinstance(item, dict):
        parts: Iterable[Any] = item.values()
    elif isinstance(item, list | tuple | set | frozenset):
        parts = item
    elif isinstance(item, Record):
        parts = (item.args, item.state)
    elif isinstance(item, np.ndarray) and item.dtype.hasobject:
        parts = item.ravel().tolist()
    else:
        return 1
    if id(item) not in known:
        known[id(item)] = None
        known[id(item)] = 1 + sum(_measure(part, known) for part in parts)
    size = known[id(item)]
    if size is None or size > LARGEST:
        raise _RefusedError("it contains itself" if size is None else f"it stands for more than {LARGEST} values")
    return size
