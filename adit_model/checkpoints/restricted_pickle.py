"""A pickle's data without a pickle's power: rebuilds plain containers and tensors, calls nothing.

A pickle is a program: unpickling it may call any function. This reader follows its opcodes (as
the standard library's `pickletools` takes them apart) and rebuilds numbers, text, lists, tuples,
dictionaries and descriptions of tensors. Whatever else the program names becomes an inert
placeholder; no name is imported.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

MAX_OPCODES = 1_000_000  # the largest published model with its optimiser has some 150,000
MAX_SIZE = 2**40  # elements; keeps the arithmetic on sizes short
MAX_RANK = 8

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Symbol(NamedTuple):
    """The name of a class or function; never looked up."""

    module: str
    name: str


class Inert:
    """Stands for every object that is no plain container, number, text or tensor."""


INERT = Inert()


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the file."""

    key: str
    dtype: torch.dtype
    num_stored: int  # elements of the storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for n in self.shape:
            count *= n
        return count


def rebuild(program: bytes) -> Any:
    """Return what a pickle describes, with `StoredTensor` for tensors and `INERT` for the rest.

    Raises:
        ValueError, LookupError, TypeError: the program is damaged or does what no checkpoint does.
    """
    return _Machine().run(program)


@dataclass
class _Machine:
    """A pickle's stack machine without the opcodes' power to call."""

    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, program: bytes) -> Any:
        """Return the object that the program builds."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if count > MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _IGNORED:
                continue
            if opcode.name in _LITERALS:
                self.stack.append(_LITERALS[opcode.name](argument))
            elif opcode.name in _MEMO_WRITERS:
                self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            elif opcode.name in _HANDLERS:
                _HANDLERS[opcode.name](self, argument)
            else:
                raise ValueError(f"opcode {opcode.name} has no place in a checkpoint")
        raise ValueError("the pickle does not end")

    def pop_mark(self) -> list[Any]:
        """The values since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[index])

    def tuple_of(self, size: int) -> None:
        items = tuple(self.stack[-size:])
        if len(items) != size:
            raise ValueError("the stack is too short")
        self.stack[-size:] = [items]

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(_plain_dict(items))

    def reduce(self, _: Any) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _rebuilt(self.stack[-1], arguments)

    def persistent(self, _: Any) -> None:
        """A storage: ("storage", its class, key, location, number of elements)."""
        tag, kind, key, _location, numel = self.stack[-1]
        if tag != "storage" or not isinstance(kind, Symbol) or not isinstance(key, str):
            raise ValueError("a persistent id that is no storage")
        self.stack[-1] = (key, _DTYPES.get(kind.name), numel)


def _plain_dict(items: list[Any]) -> dict[Any, Any]:
    """Pairs with plain keys; hashing others could take for ever (tuples nested in tuples)."""
    pairs = zip(items[::2], items[1::2], strict=True)
    return {k: v for k, v in pairs if k is None or isinstance(k, str | int | float | bytes)}


def _symbol(module: Any, name: Any) -> Any:
    return Symbol(module, name) if isinstance(module, str) and isinstance(name, str) else INERT


def _rebuilt(what: Any, arguments: Any) -> Any:
    """The value for a call or a construction: a tensor, a dictionary, or the placeholder."""
    if not isinstance(what, Symbol):
        return INERT
    if what == ("collections", "OrderedDict"):
        return {}
    if what == ("torch._utils", "_rebuild_tensor_v2"):
        (key, dtype, num_stored), offset, shape, stride = arguments[:4]
        whole = [num_stored, offset, *shape, *stride]
        described = isinstance(key, str) and isinstance(dtype, torch.dtype)
        sane = all(type(n) is int and abs(n) < MAX_SIZE for n in whole) and len(shape) <= MAX_RANK
        if not described or not sane or len(shape) != len(stride):
            return INERT
        return StoredTensor(key, dtype, num_stored, offset, tuple(shape), tuple(stride))
    if what in (
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_parameter_with_state"),
    ):
        return arguments[0]
    return INERT


def _same(argument: Any) -> Any:
    return argument


_IGNORED = {"PROTO", "FRAME"}
_MEMO_WRITERS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_NUMBERS_AND_TEXT = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
)  # fmt: skip
_LITERALS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_NUMBERS_AND_TEXT, _same),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_SET": lambda _: INERT,
    "GLOBAL": lambda argument: Symbol(*argument.split(" ", 1)),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4", "PERSID"), lambda _: INERT),
}
_HANDLERS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": _Machine.mark,
    "POP": lambda m, _: m.stack.pop() if m.stack else m.pop_mark(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: _push(m, tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: _push(m, m.pop_mark()),
    "DICT": lambda m, _: _push(m, _plain_dict(m.pop_mark())),
    "FROZENSET": lambda m, _: _push(m, INERT, m.pop_mark()),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.pop_mark()),
    "SETITEM": lambda m, _: m.update([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.update(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.pop_mark(),
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "STACK_GLOBAL": lambda m, _: _push(m, _symbol(m.stack.pop(-2), m.stack.pop())),
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": lambda m, _: m.reduce(m.stack.pop()),
    "INST": lambda m, _: _push(m, INERT, m.pop_mark()),
    "OBJ": lambda m, _: _push(m, INERT, m.pop_mark()),
    "BUILD": lambda m, _: m.stack.pop(),  # the state of a foreign object, or metadata of a dict
    "BINPERSID": _Machine.persistent,
}


def _push(machine: _Machine, value: Any, _: Any = None) -> None:
    machine.stack.append(value)
