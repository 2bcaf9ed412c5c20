"""The bytes that stand for a value when calls are compared: equal values give equal bytes, in any process."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import functools
import hashlib
import inspect
import pathlib
import sys
import threading
import types
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from flowcore.data_provider.files import File

DIGEST_BYTES: Final = 20

_DESCRIPTIONS: Final = frozenset({"__annotations__", "__annotate__", "__doc__", "__type_params__"})
"""Attributes that `functools.update_wrapper` gives to a callable object, and that say nothing about what it does."""


@functools.singledispatch
def id_for_memo(obj: object, output_ref: bool = False) -> bytes:
    """Return bytes that are equal for equal values and differ for others.

    Known are None, numbers, strings, bytes, dates, paths, files (by their place, not their content), enumerations,
    lists, tuples, dicts, sets, dataclasses and attrs classes of such, numpy arrays, functions and classes. A function
    counts as the same while its name, its code, its defaults and what it closes over are the same. Teach it a type of
    your own, subclasses included, with

        @id_for_memo.register(Molecule)
        def _(molecule, output_ref=False):
            return id_for_memo(molecule.formula)

    Args:
        obj: the value.
        output_ref: whether the value says where output goes; then its content, which is yet to come, does not count.

    Raises:
        ValueError: the value, or one inside it, is of an unknown type, or it contains itself.
    """
    known = _KNOWN.get(type(obj))
    if known is not None:
        return known(obj, output_ref)
    return _by_shape(obj, output_ref)


def hash_of_call(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], ignore: Iterable[str]
) -> str:
    """Return the hash of a call, equal for equal calls; parameters named in `ignore` do not count.

    Raises:
        ValueError: an argument's type is unknown.
    """
    ignored = frozenset(ignore)
    if "walltime" in ignored:
        func = getattr(func, "untimed", func)  # the wrappers that apps put around a function for it have that
    names = _positional_names(func) if ignored else ()
    skipped = {place for place, name in enumerate(names) if name in ignored}
    parts = [_callable(func), str(len(args)).encode()]
    parts += [b"" if place in skipped else id_for_memo(arg) for place, arg in enumerate(args)]
    for name in sorted(kwargs.keys() - ignored):
        parts += [name.encode(), id_for_memo(kwargs[name], output_ref=name == "outputs")]
    return hashlib.blake2b(_framed(b"call-1", *parts), digest_size=DIGEST_BYTES).hexdigest()


class _Visiting(threading.local):
    """The objects whose insides this thread is looking at."""

    def __init__(self) -> None:
        self.ids: set[int] = set()


_visiting = _Visiting()


def _framed(tag: bytes, *parts: bytes) -> bytes:
    """Join parts so that no two lists of parts give the same bytes."""
    return b"".join((tag, b"(", *(b"%d:%b" % (len(part), part) for part in parts), b")"))


def _digest(content: bytes | bytearray | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _each(obj: object, items: Iterable[object], output_ref: bool) -> list[bytes]:
    if id(obj) in _visiting.ids:
        raise ValueError(f"unknown type for memoization: a {type(obj).__name__} that contains itself")
    _visiting.ids.add(id(obj))
    try:
        return [id_for_memo(item, output_ref=output_ref) for item in items]
    finally:
        _visiting.ids.discard(id(obj))


def _by_repr(obj: object, _output_ref: bool) -> bytes:
    return _framed(type(obj).__name__.encode(), repr(obj).encode())


def _text(obj: Any, _output_ref: bool) -> bytes:
    return _framed(b"str", obj.encode("utf-8", "surrogatepass"))


def _binary(obj: Any, _output_ref: bool) -> bytes:
    return _framed(type(obj).__name__.encode(), bytes(obj) if len(obj) <= DIGEST_BYTES else b"=" + _digest(obj))


def _ordered(obj: Any, output_ref: bool) -> bytes:
    return _framed(_class_name(type(obj)), *_each(obj, obj, output_ref))


def _unordered(obj: Any, output_ref: bool) -> bytes:
    return _framed(_class_name(type(obj)), *sorted(_each(obj, obj, output_ref)))


def _pairs(obj: Any, output_ref: bool) -> list[bytes]:
    keys, values = _each(obj, obj.keys(), output_ref), _each(obj, obj.values(), output_ref)
    return [_framed(b"", key, value) for key, value in zip(keys, values, strict=True)]


def _mapping(obj: Any, output_ref: bool) -> bytes:
    return _framed(_class_name(type(obj)), *sorted(_pairs(obj, output_ref)))


def _ordered_mapping(obj: Any, output_ref: bool) -> bytes:
    return _framed(_class_name(type(obj)), *_pairs(obj, output_ref))


def _class_name(kind: type) -> bytes:
    return f"{kind.__module__}.{kind.__qualname__}".encode()


def _function(obj: Any, _output_ref: bool) -> bytes:
    name = f"{obj.__module__}.{obj.__qualname__}".encode()
    if id(obj) in _visiting.ids:
        return _framed(b"recursive", name)
    _visiting.ids.add(id(obj))
    try:
        surroundings = [obj.__defaults__, obj.__kwdefaults__, *(_content(cell) for cell in obj.__closure__ or ())]
        return _framed(b"function", name, _code_digest(obj.__code__), *map(_surrounding, surroundings))
    finally:
        _visiting.ids.discard(id(obj))


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _surrounding(value: object) -> bytes:
    """Return what stands for a default or a variable of an outer function; its type where its value is unknown."""
    try:
        return id_for_memo(value)
    except ValueError:
        return _class_name(type(value))


@functools.lru_cache(maxsize=1024)
def _code_digest(code: types.CodeType) -> bytes:
    parts = [
        code.co_code,
        getattr(code, "co_exceptiontable", b""),
        repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)).encode(),
        repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)).encode(),
        *(_code_digest(each) if isinstance(each, types.CodeType) else id_for_memo(each) for each in code.co_consts),
    ]
    return _digest(_framed(b"code", *parts))


def _method(obj: Any, output_ref: bool) -> bytes:
    return _framed(b"method", id_for_memo(obj.__self__, output_ref=output_ref), _callable(obj.__func__))


def _builtin(obj: Any, output_ref: bool) -> bytes:
    owner = obj.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return _framed(b"builtin", f"{obj.__module__}.{obj.__qualname__}".encode())
    return _framed(b"builtin", obj.__qualname__.encode(), id_for_memo(owner, output_ref=output_ref))


def _partial(obj: Any, output_ref: bool) -> bytes:
    return _framed(b"partial", _callable(obj.func), *_each(obj, (obj.args, obj.keywords), output_ref))


def _by_shape(obj: Any, output_ref: bool) -> bytes:
    kind = type(obj)
    name = _class_name(kind)
    if isinstance(obj, type):
        return _framed(b"class", _class_name(obj))
    if isinstance(obj, enum.Enum):
        return _framed(b"enum", name, str(obj.name or obj.value).encode())
    if isinstance(obj, File):
        return _framed(b"file", obj.scheme.encode(), (obj.path if obj.scheme == "file" else obj.url).encode())
    if isinstance(obj, pathlib.PurePath):
        return _framed(b"path", str(obj).encode("utf-8", "surrogateescape"))
    if isinstance(obj, tuple) and hasattr(kind, "_fields"):
        return _framed(name, *_each(obj, obj, output_ref))
    fields = _fields(kind)
    if fields is not None:
        return _framed(
            name, *_each(obj, (item for field in fields for item in (field, getattr(obj, field))), output_ref)
        )
    array = _array(obj, output_ref)
    if array is not None:
        return array
    register = f"teach it with `@id_for_memo.register({kind.__name__})`, or name the parameter in ignore_for_cache"
    raise ValueError(f"unknown type for memoization: {kind}\n  {register}")


def _fields(kind: type) -> list[str] | None:
    """Name the fields that count in comparisons of a dataclass or an attrs class."""
    if attrs.has(kind):
        return [field.name for field in attrs.fields(kind) if field.eq]
    fields = getattr(kind, "__dataclass_fields__", None)
    return None if fields is None else [name for name, field in fields.items() if field.compare]


def _array(obj: Any, output_ref: bool) -> bytes | None:
    """Return what stands for a numpy array or scalar; None for anything else, numpy not being imported for it."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(obj, (numpy.ndarray, numpy.generic)):
        return None
    described = repr((obj.dtype.descr, obj.shape)).encode()
    if obj.dtype.hasobject:
        return _framed(b"numpy", described, *_each(obj, obj.ravel().tolist(), output_ref))
    return _framed(b"numpy", described, _digest(obj.tobytes()))


def _callable(func: Callable[..., Any]) -> bytes:
    """Return what stands for a function to be called.

    An object that can be called is its class and its attributes, but for what only describes a function that it wraps.
    """
    call = getattr(type(func), "__call__", None)  # noqa: B004 - the function itself is needed
    if type(func) in _KNOWN or isinstance(func, type) or not isinstance(call, types.FunctionType):
        return id_for_memo(func)
    attributes = {**_slots(func), **getattr(func, "__dict__", {})}
    state = {name: value for name, value in attributes.items() if name not in _DESCRIPTIONS}
    if not state:
        return _framed(b"callable", id_for_memo(call), _surrounding(func))
    return _framed(b"callable", id_for_memo(call), *(_attribute(name, state[name]) for name in sorted(state)))


def _slots(obj: object) -> Mapping[str, Any]:
    """Return what an object keeps in slots; nothing of a dataclass or an attrs class, whose fields are known."""
    if _fields(type(obj)) is not None:
        return {}
    members = [member for kind in type(obj).__mro__ for member in vars(kind).items()]
    names = [name for name, value in members if inspect.ismemberdescriptor(value)]
    return {name: getattr(obj, name) for name in names if hasattr(obj, name)}


def _attribute(name: str, value: object) -> bytes:
    return _framed(name.encode(), _callable(value) if callable(value) else id_for_memo(value))


def _positional_names(func: Any) -> Sequence[str]:
    """Name the positional parameters of the function that a task's callable ends in."""
    while not isinstance(func, types.FunctionType) and hasattr(func, "function"):
        func = func.function  # the wrappers that apps put around a function call it so
    try:
        parameters = inspect.signature(func).parameters.values()
    except ValueError:  # a function in C that does not tell
        return ()
    return [one.name for one in parameters if one.kind in {one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD}]


_KNOWN: Final[Mapping[type, Callable[[Any, bool], bytes]]] = {
    **dict.fromkeys(
        (type(None), bool, int, float, complex, range, slice, type(Ellipsis), type(NotImplemented)), _by_repr
    ),
    **dict.fromkeys((dt.date, dt.time, dt.datetime, dt.timedelta, dt.timezone), _by_repr),
    **dict.fromkeys((decimal.Decimal, fractions.Fraction, uuid.UUID), _by_repr),
    str: _text,
    bytes: _binary,
    bytearray: _binary,
    list: _ordered,
    tuple: _ordered,
    dict: _mapping,
    OrderedDict: _ordered_mapping,
    set: _unordered,
    frozenset: _unordered,
    types.FunctionType: _function,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    functools.partial: _partial,
}
