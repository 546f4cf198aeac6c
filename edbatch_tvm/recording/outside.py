"""Ordinary tensors that recorded calls read: copies of their numbers, as they were when they were passed.

A copy goes straight into a table of all rows of that size, from which the graph reads it. That costs a third of
``clone()``, of which a minibatch would make thousands. Tensors of equal numbers are one row: first states, which are
zeros, and words that a minibatch has several times. Their bytes are what they are known by, or for large ones the
object, whose bytes are compared with the copy.
"""

from __future__ import annotations

import _ctypes
import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, strided

from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.specs import CODED, TensorSpec, spec_of
from edbatch_tvm.recording.value_tables import Table, Tables

if TYPE_CHECKING:
    from edbatch_tvm.recording.followed_parameters import FollowedTensor
    from edbatch_tvm.recording.gradient_tape import GradientTape

Row = tuple[torch.nn.Parameter, "int | None"]
"""A row of a parameter; None: all of it."""

# ctypes.memmove lets other threads run meanwhile, which takes longer than to copy a row.
_copy: Any = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(
    _ctypes._memmove_addr  # type: ignore[attr-defined]
)
_compare: Any = ctypes.PyDLL(None).memcmp
_compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_compare.restype = ctypes.c_int

_is_grad_enabled = torch.is_grad_enabled

_MOST_BYTES = 4096
"""Bytes of a tensor that is known by them; to hash more takes longer than to compare them."""


class _Readers(dict[int, Any]):
    """By number of bytes what reads as many at an address; None for too many."""

    def __missing__(self, count: int) -> Any:
        reader = self[count] = (ctypes.c_char * count).from_address if count <= _MOST_BYTES else None
        return reader


_READERS = _Readers()


def _is_plain(tensor: Tensor) -> bool:
    """Whether the numbers lie in memory one after the other, as they are."""
    return tensor.is_contiguous() and not tensor.is_neg()


def _address_of(tensor: Tensor) -> int:
    """Where the numbers of a tensor lie.

    Raises
    ------
    CellError
        If it has no memory, as those of ``torch.func``.
    """
    try:
        address = tensor.data_ptr()
    except RuntimeError:
        address = 0
    if not address:
        raise CellError("a tensor without memory")
    return address


class Outside:
    """The tensors from outside of one minibatch, numbered -1, -2, ...

    Attributes
    ----------
    specs : list of TensorSpec
        By ``-1 - number``, as the following.
    tables : Tables
        Where they lie, beside computed values.
    table, row : list of int
        Where each lies.
    known_by_size : dict of bytes to dict of bytes to int
        By the extents of the shape, the numbers of small tensors of :attr:`dtype` by their bytes; by these extents and
        a 0, those of tensors that are one number, expanded, by the bytes of that number. Read by ``native_core``.
    dtype : torch.dtype
        Of the values of the minibatch.
    bits : int
        Of each number.
    seen : object
        What ``native_core`` has seen last.
    tape : GradientTape or None
        Where gradients are recorded: what knows the tensors that require one.
    followed : dict of int to (Parameter, int or None)
        By number, the tensors that are read again: rows of parameters, and whole ones.
    """

    __slots__ = (
        *(
            "_addresses",
            "_followed_numbers",
            "_known",
            "_lists",
            "_objects",
            "_places",
            "bits",
            "followed",
            "known_by_size",
            "row",
            "seen",
            "specs",
            "table",
            "tables",
        ),
        *("__weakref__", "dtype", "tape"),
    )

    def __init__(self, tables: Tables, tape: GradientTape | None = None) -> None:
        self.tape = tape
        self.specs: list[TensorSpec] = []
        self.table: list[int] = []
        self.row: list[int] = []
        self.tables = tables
        self.dtype = tables.dtype
        self.bits = 8 * self.dtype.itemsize
        self._places = self._addresses = np.empty((2, 0), np.int64)
        # By shape, those of the dtype; by spec, others.
        self._known: dict[torch.Size | TensorSpec, tuple[dict[bytes, int], Any]] = {}
        # The numbers of the rows of tensors, which are often read again: masks.
        self._lists: dict[tuple[torch.Size | TensorSpec, bytes], list[int]] = {}
        self.seen: Any = None
        self.known_by_size: dict[bytes, dict[bytes, int]] = {}
        self._objects: dict[int, tuple[TensorSpec, Table, int, int]] = {}
        self.followed: dict[int, Row] = {}
        self._followed_numbers: dict[tuple[int, int | None, torch.Size, bool], int] = {}

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor with what is in it now.

        Raises
        ------
        CellError
            If it cannot be an operand.
        """
        if (
            type(tensor) is Tensor
            and tensor.dtype is self.dtype
            and tensor.layout is strided
            and tensor.is_cpu
            and tensor.is_contiguous()
            and not tensor.is_neg()
            and not (tensor.requires_grad and _is_grad_enabled())
        ):
            alike = self._known.get(tensor.shape)
            if alike is not None:
                numbers, reader = alike
                try:
                    number = numbers.get(reader(tensor.data_ptr()).raw)
                except (RuntimeError, ValueError):  # no memory
                    number = None
                return self._other(tensor) if number is None else number
        return self._other(tensor)

    def numbers(self, tensor: Tensor, at: int) -> list[int]:
        """The numbers of the rows of a tensor along a dimension, before which others have extent 1.

        A row keeps the dimension, with an extent of 1.
        """
        shape, dtype = tensor.shape, tensor.dtype
        count = shape[at]
        spec = spec_of((*shape[:at], 1, *shape[at + 1 :]), dtype)
        size = self.dtype.itemsize * spec.size
        reader = _READERS[size] if count > 1 and size else None
        wanted = tensor.requires_grad and _is_grad_enabled()
        if reader is None or wanted or type(tensor) not in (Tensor, torch.nn.Parameter):
            return [self.number(part) for part in tensor.split(1, at)] if count else []
        own = dtype is self.dtype
        plain = own and tensor.layout is strided and tensor.is_cpu and _is_plain(tensor)
        source = tensor if plain else self._converted(tensor, dtype)  # all rows at once
        address = _address_of(source)
        key = spec.shape if own else spec
        read = _READERS[size * count]
        content = None if read is None else read(address).raw
        found = None if content is None else self._lists.get((key, content))
        if found is None:
            found = self._rows_at(address, count, spec, reader)
            if content is not None:
                self._lists[key, content] = found.copy()
        if own and not plain and not any(tensor.stride()[at + 1 :]) and not tensor.is_neg():
            alike = self.known_by_size.setdefault(np.array([*spec.shape, 0], np.int64).tobytes(), {})
            first = _READERS[self.dtype.itemsize]
            alike.update((first(address + place * size).raw, number) for place, number in enumerate(found))
        return found.copy()

    def parts(self, tensor: Tensor, count: int, shape: torch.Size) -> list[int]:
        """The numbers of `count` tensors of `shape` that lie one after the other in the memory of a tensor.

        The tensor is contiguous and of the dtype of the minibatch.
        """
        spec = spec_of(shape, self.dtype)
        reader = _READERS[self.dtype.itemsize * spec.size]
        if reader is None:
            return [self.number(part) for part in tensor.detach().view(count, *shape)]
        return self._rows_at(_address_of(tensor), count, spec, reader)

    def _rows_at(self, address: int, count: int, spec: TensorSpec, reader: Any) -> list[int]:
        """The numbers of tensors of `spec` that lie one after the other; `reader` reads one."""
        size = self.dtype.itemsize * spec.size
        key = spec.shape if spec.dtype is self.dtype else spec
        known = (self._known.get(key) or self._knows(key, reader))[0]
        found = []
        for begin in range(address, address + size * count, size):
            row = reader(begin).raw
            number = known.get(row)
            if number is None:
                self._add(spec, begin)
                number = known[row] = -len(self.specs)
            found.append(number)
        return found

    def _other(self, tensor: Tensor) -> int:
        """The number of a tensor that is not known, or not by its bytes."""
        if tensor.requires_grad and _is_grad_enabled():
            if self.tape is not None:
                return self.tape.number(self, tensor)
            raise RecordingError(
                f"a tensor of shape {list(tensor.shape)} requires a gradient, no parameter of the model does, and the "
                "tensor is not among the arguments of an element",
                "gradients of parameters, or of tensors that are arguments, also in lists, tuples and dicts",
                "with torch.no_grad(): ..., tensor.detach(), or a parameter in its place",
            )
        dtype = tensor.dtype
        spec, address, _source = self._numbers_of(tensor)
        reader = _READERS[self.dtype.itemsize * spec.size]
        if reader is None:
            return self._large(tensor, spec, address)
        key = spec.shape if dtype is self.dtype else spec
        known = self._known.get(key)
        if known is None:
            known = self._knows(key, reader)
        content = reader(address).raw
        number = known[0].get(content)
        if number is None:
            self._add(spec, address)
            number = known[0][content] = -len(self.specs)
        return number

    def new_number(self, tensor: Tensor) -> int:
        """A number of its own for a tensor, whatever others there are.

        Raises
        ------
        CellError
            If it cannot be an operand.
        """
        spec, address, _source = self._numbers_of(tensor)
        self._add(spec, address)
        return -len(self.specs)

    def followed_number(self, tensor: FollowedTensor) -> int:
        """The number of a row of a parameter, or of a whole one: the same for the same, whatever its numbers are.

        Raises
        ------
        CellError
            If it cannot be an operand.
        """
        parameter = tensor.parameter
        trains = self.tape is not None and parameter.requires_grad and _is_grad_enabled()
        key = id(parameter), tensor.row, tensor.plain.shape, trains
        number = self._followed_numbers.get(key)
        if number is None:
            number = self._followed_numbers[key] = self.new_number(tensor.plain.detach())
            self.followed[number] = parameter, tensor.row
            if trains and self.tape is not None:
                self.tape.follow(number, parameter, tensor.row)
        return number

    def _numbers_of(self, tensor: Tensor) -> tuple[TensorSpec, int, Tensor]:
        """The spec of a tensor, the address of its numbers, and the tensor that has them there."""
        dtype = tensor.dtype
        source = tensor
        layout = tensor.layout is strided and tensor.is_cpu
        if dtype is not self.dtype or type(tensor) is not Tensor or not layout or not _is_plain(tensor):
            source = self._converted(tensor, dtype)
        spec = spec_of(tensor.shape, dtype)
        if not spec.size:
            raise NoElements
        address = _address_of(source)
        return spec, address, source

    def _knows(self, key: torch.Size | TensorSpec, reader: Any) -> tuple[dict[bytes, int], Any]:
        """No tensors of a shape so far."""
        known: tuple[dict[bytes, int], Any] = {}, reader
        self._known[key] = known
        if isinstance(key, torch.Size):
            self.known_by_size[np.array(key, np.int64).tobytes()] = known[0]
        return known

    def _large(self, tensor: Tensor, spec: TensorSpec, address: int) -> int:
        """The number of a tensor that is not known by its bytes."""
        known = self._objects.get(id(tensor))
        # What is there now may be another tensor, or have other numbers; if it has the same, it is the same.
        if known is not None and known[0] is spec:
            table, row, number = known[1:]
            if not _compare(table.address + row * table.bytes, address, table.bytes):
                return number
        table, row = self._add(spec, address)
        number = -len(self.specs)
        self._objects[id(tensor)] = spec, table, row, number
        return number

    def _add(self, spec: TensorSpec, address: int) -> tuple[Table, int]:
        """Copy the numbers of one more tensor: into which table, and which row of it."""
        table = self.tables.by_size.get(spec.size) or self.tables.of(spec.size)
        row = table.count
        if row == table.capacity:
            table.grow(row + 1)
        _copy(table.address + row * table.bytes, address, table.bytes)
        table.count = row + 1
        self.specs.append(spec)
        self.table.append(table.number)
        self.row.append(row)
        return table, row

    def _converted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if tensor.layout is not torch.strided:
            raise CellError(
                f"an argument of a cell is a tensor of layout {tensor.layout}",
                "tensors whose elements lie in memory one by one",
                "a buffer that is the same for all elements may have any layout; else convert it with .to_dense()",
            )
        if dtype not in (self.dtype, *CODED) or not tensor.is_cpu:
            raise CellError(
                f"an argument of a cell is a tensor of shape {list(tensor.shape)} of {dtype} on {tensor.device}",
                f"{self.dtype} on cpu, as the model's parameters (or integers, as attributes)",
                f"convert it with .to({self.dtype}), or the model",
            )
        return tensor.detach().to(self.dtype).contiguous().resolve_neg()

    def flat(self, number: int) -> Tensor:
        """The numbers of a tensor, flat; memory of a table."""
        at = -1 - number
        return torch.from_numpy(self.tables[self.table[at]].rows[self.row[at]])

    def rows_of(self, numbers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Those of `numbers` in one table after those in another: positions in `numbers`, and their rows."""
        table, row = self.places()[:, -1 - numbers]
        return self.tables.rows_of(table, row)

    def addresses(self) -> np.ndarray:
        """Where they lie: addresses, and their bytes."""
        table, row = self.places()
        if self._addresses.shape[1] != len(row):  # else none was added, so no table has grown
            of_table = np.array([(one.address, one.bytes) for one in self.tables], np.int64).reshape(-1, 2)
            begin, size = of_table[table].T
            self._addresses = np.stack([begin + row * size, size])
        return self._addresses

    def places(self) -> np.ndarray:
        """Where they lie: tables, and rows in them."""
        known = self._places.shape[1]
        if known < len(self.row):
            later = np.array([self.table[known:], self.row[known:]], np.int64)
            self._places = np.concatenate([self._places, later], 1)
        return self._places
