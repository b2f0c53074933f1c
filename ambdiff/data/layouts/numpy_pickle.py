"""Pickles of dicts, lists, text, numbers and NumPy arrays, read without running anything in them.

A pickle is a program: it names functions and calls them. Here the names in `_ALLOWED` are all that can be named, and
each stands for a stand-in of this file, so that not even NumPy's own functions are called: an array is made of the
bytes that are in the file, checked against the shape and the type it claims. Every read is bounded by the file, so that
nothing in it can claim more memory than the file is long, and all arrays together hold at most twice as much.
"""

import mmap
import pathlib
import pickle
import struct
from collections.abc import Callable

import numpy as np

from ambdiff.errors import UserError

_KINDS = 'biuf'


class _Refused(Exception):
    """The pickle is well formed, and is not what is read here."""


class Array:
    """What stands for an array until its bytes are known; then `value` is what `keep` made of it."""

    __slots__ = ('_keep', 'value')

    def __init__(self, keep):
        self._keep = keep
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.value = self._keep(_array(content, dtype, shape, 'F' if fortran else 'C'))


class _Dtype:
    """A type of numbers: NumPy's name of it, then its byte order; records and objects are refused."""

    __slots__ = ('numpy',)

    def __init__(self, name):
        self.numpy = np.dtype(name) if isinstance(name, str) and len(name) <= 3 else np.dtype(object)
        if self.numpy.kind not in _KINDS:
            raise _Refused(f'an array of {str(name)[:20]!r}; only arrays of numbers are read')

    def __setstate__(self, state):
        _, order, *rest = state
        if order not in ('<', '>', '=', '|') or any(x is not None for x in rest[:3]):
            raise _Refused('an array of records; only arrays of numbers are read')
        self.numpy = self.numpy.newbyteorder(order)


class _Named:
    """A function that a pickle may call, but not change."""

    __slots__ = ('_call',)

    def __init__(self, call):
        self._call = call

    def __call__(self, *arguments):
        return self._call(*arguments)

    def __setstate__(self, state):
        raise _Refused('it sets the state of a function')


class _NdarrayType:
    """Stands for numpy.ndarray, which a pickle of an array names; it cannot be called."""

    __slots__ = ()

    def __setstate__(self, state):
        raise _Refused('it sets the state of a type')


def _array(content, dtype, shape, order):
    """A view of an array's bytes, its claims checked."""
    if isinstance(content, str):
        content = content.encode('latin-1')  # how Python 2 wrote bytes
    if len(shape) > 8:
        raise _Refused(f'an array of {len(shape)} axes')
    if any(type(n) is not int or not 0 <= n < 1 << 40 for n in shape):
        raise _Refused('an array of sides that no array has')
    numbers = list(shape)
    count = 1
    for n in numbers:
        count *= n
    if count * dtype.numpy.itemsize != len(content):
        raise _Refused(f'an array claims the shape {tuple(numbers)} of {dtype.numpy} but has {len(content)} bytes')
    return np.frombuffer(content, dtype.numpy).reshape(numbers, order=order)


# The module of these functions is numpy.core up to NumPy 1 and numpy._core from NumPy 2 on.
_ALLOWED = {
    ('numpy', 'ndarray'): 'ndarray',
    ('numpy', 'dtype'): 'dtype',
    ('_codecs', 'encode'): 'encode',
    **{(f'numpy.{core}.multiarray', name): name for core in ('core', '_core') for name in ('_reconstruct', 'scalar')},
    **{(f'numpy.{core}.numeric', '_frombuffer'): '_frombuffer' for core in ('core', '_core')},
}


def _with_plain_keys(load, start, step):
    """An operation of the interpreter that puts keys, every `step`th of its stack from `start`, where they are hashed.

    Only text is admitted: tuples and frozensets of themselves, each twice, take no room but for ever to hash, and
    numbers can be chosen to fall on one place of the table.
    """

    def checked(self):
        if any(type(key) is not str for key in self.stack[start::step]):
            raise _Refused('a key that is no text')
        load(self)

    return checked


# The interpreter in Python, not the one in C: that one allocates what a length or a memo number claims before it reads.
class _Unpickler(pickle._Unpickler):
    def __init__(self, file, size, keep):
        def counted(array):
            self._spend(array.nbytes)
            return keep(array)

        super().__init__(file, encoding='latin-1')
        self._stand_ins = {
            'ndarray': _NdarrayType(),
            'dtype': _Named(lambda name, *flags: _Dtype(name)),
            '_reconstruct': _Named(lambda kind, shape, code: Array(counted)),
            'scalar': _Named(lambda dtype, content: _array(content, dtype, (), 'C').item()),
            '_frombuffer': _Named(self._from_buffer),
            'encode': _Named(self._encode),
        }
        # The bytes of one array may be named again and again; text as protocol 2 writes bytes counts twice.
        self._left = 2 * size
        self._keep = counted

    def find_class(self, module, name):
        """The stand-in of a name; any other name is refused."""
        if (module, name) not in _ALLOWED:
            raise _Refused(f'it asks for {module}.{name}, and only NumPy arrays and builtins are admitted')
        return self._stand_ins[_ALLOWED[module, name]]

    def persistent_load(self, pid):
        """Refuses: nothing outside the file is read."""
        raise _Refused('it asks for an object outside the file')

    def get_extension(self, code):
        """Refuses: the codes name functions in a registry of the process."""
        raise _Refused('it asks for a function by number')

    def _load_buffer(self):
        # The interpreter would make room for the length that is claimed; a read ends at the end of the file.
        self.append(self.read(struct.unpack('<Q', self.read(8))[0]))

    def _spend(self, count):
        self._left -= count
        if self._left < 0:
            raise _Refused('its arrays hold more bytes than the file')

    def _encode(self, text, encoding):
        if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
            raise _Refused('it encodes what is not bytes')
        self._spend(len(text))
        return text.encode('latin-1')

    dispatch = pickle._Unpickler.dispatch | {
        pickle.BYTEARRAY8[0]: _load_buffer,
        pickle.SETITEM[0]: _with_plain_keys(pickle._Unpickler.load_setitem, -2, 2),
        pickle.SETITEMS[0]: _with_plain_keys(pickle._Unpickler.load_setitems, 0, 2),
        pickle.DICT[0]: _with_plain_keys(pickle._Unpickler.load_dict, 0, 2),
        pickle.ADDITEMS[0]: _with_plain_keys(pickle._Unpickler.load_additems, 0, 1),
        pickle.FROZENSET[0]: _with_plain_keys(pickle._Unpickler.load_frozenset, 0, 1),
    }

    def _from_buffer(self, content, dtype, shape, order):
        found = Array(self._keep)
        found.value = self._keep(_array(content, dtype, shape, order))
        return found


def is_pickle(path: pathlib.Path) -> bool:
    """Whether a file starts as a pickle of protocol 2 to 5 does."""
    with path.open('rb') as file:
        start = file.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def load(path: pathlib.Path, keep: Callable[[np.ndarray], object], progress: Callable[[int], None] | None = None):
    """What the pickle at `path` holds, each array an `Array` whose `value` is keep(array).

    Args:
      path: the file.
      keep: called with each array while its bytes are in memory, so that a large file can be kept small; the array is a
        view that must not be kept itself.
      progress: called now and then with the bytes read since the last call.

    Raises:
      UserError: it is not a whole pickle, or asks for anything but arrays and builtins; nothing of it has run.
    """
    try:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Unpickler(_Counted(content, progress), len(content), keep).load()
    except UserError:
        raise
    # Damage can raise anything in an interpreter of a program that is not one.
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        if isinstance(error, _Refused):
            raise UserError(f'{path}: refused, nothing was run: {reason}') from error
        raise UserError(f'{path}: the pickle is damaged or truncated ({reason}); copy or download it again') from error


class _Counted:
    """A file that tells how much of it was read; reads end at its end."""

    def __init__(self, content, progress):
        self._content, self._progress, self._told = content, progress, 0
        self.readline = content.readline

    def read(self, size):
        position = self._content.tell()
        if self._progress and position - self._told > 1 << 24:
            self._progress(position - self._told)
            self._told = position
        return self._content.read(size)
