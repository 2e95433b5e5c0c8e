"""Convert a pickle of plain containers to JSON: `python -m storage.exchange.plain_pickle IN OUT`.

The opcodes are read as data and nothing is called: only lists, dictionaries, tuples, texts,
numbers, booleans and None are understood. A pickle that names a class or a function is refused.
"""

from __future__ import annotations

import itertools
import json
import pickletools
import sys
from pathlib import Path
from typing import Any, Final

from storage.exchange.sources import ExchangeError

_INTEGERS: Final = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
_TEXTS: Final = ("UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE")
_VALUES: Final = frozenset((*_INTEGERS, *_TEXTS, "FLOAT", "BINFLOAT"))
_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES: Final = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS: Final = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS: Final = ("GET", "BINGET", "LONG_BINGET")
_MARK: Final = object()
_LARGEST: Final = 1 << 28


def read_plain(data: bytes) -> Any:
    """The value in a pickle of plain containers.

    Raises:
        ExchangeError: It is damaged, or holds anything else; nothing of it has run.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ExchangeError):
            raise
        raise ExchangeError(f"not a whole pickle of plain containers ({error})") from error
    raise ExchangeError("not a whole pickle of plain containers (it has no end)")


class _Machine:
    """The stack and the memo of a pickle, without calls."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one opcode."""
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in _TUPLES:
            stack.append(tuple(self._last(_TUPLES[name])))
        elif name in ("LIST", "TUPLE", "DICT"):
            items = self._to_mark()
            stack.append(_pairs(items) if name == "DICT" else items)
            if name == "TUPLE":
                stack.append(tuple(stack.pop()))
        elif name in ("APPEND", "APPENDS"):
            items = self._last(1) if name == "APPEND" else self._to_mark()
            stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._last(2) if name == "SETITEM" else self._to_mark()
            stack[-1].update(_pairs(items))
        elif name in _PUTS:
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            raise ExchangeError(
                f"it holds more than plain containers ({name} {argument or ''}".rstrip() + "), such"
                " as tensors or numpy numbers: its owner has to write it again where it was made, "
                "ids as JSON and arrays as safetensors"
            )

    def _last(self, count: int) -> list[Any]:
        if not count:
            return []
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _to_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _as_json(value: Any) -> bytes:
    """JSON of a value; a pickle of some bytes can hold a list 2^40 times.

    Raises:
        ExchangeError: it would be larger than files are, or is nested too deeply.
        TypeError, ValueError: JSON has no such value.
    """
    try:
        if _size(value, {}) > _LARGEST:
            raise ExchangeError(f"it would be larger than {_LARGEST >> 20} MiB as JSON")
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ExchangeError("it is nested too deeply, or holds itself") from None


def _size(value: Any, known: dict[int, int]) -> int:
    """At least so many characters as JSON; a part that occurs often is counted each time."""
    if isinstance(value, str):
        return len(value) + 2
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in known:
        parts = itertools.chain(value, value.values()) if isinstance(value, dict) else value
        known[id(value)] = 2 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def main(arguments: list[str]) -> int:
    """Convert one file; the status is 2 if it is refused."""
    if len(arguments) != 2:
        print("usage: python -m storage.exchange.plain_pickle IN.pkl OUT.json", file=sys.stderr)
        return 2
    source, target = map(Path, arguments)
    try:
        if target.exists():
            raise ExchangeError(f"{target} exists; name another file")
        target.write_bytes(_as_json(read_plain(source.read_bytes())))
    except (OSError, ValueError, TypeError) as error:
        print(f"{source}: {error}", file=sys.stderr)
        return 2
    print(f"{target}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
