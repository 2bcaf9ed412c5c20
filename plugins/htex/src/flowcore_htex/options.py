"""The executor's parameters: checked where they are given, and what follows from them."""
# ruff: noqa: RUF009 - the fields are made by a function of this module

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from flowcore.errors import ConfigurationError
from flowcore.resources import parse_memory
from flowcore_htex.addresses import check_port, check_port_range, resolve
from flowcore_htex.affinity import check_affinity
from flowcore_htex.launch import MANAGER, SETTINGS, TEMPLATE_KEYS, check_template, interchange_command
from flowcore_htex.matching import ManagerSelector, RandomManagerSelector

_LEAST_MEMORY: Final = 64
_LONGEST: Final = 2_000_000
"""Seconds that the system calls can wait."""


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r}: it has to be a number above 0")
    return value


def _seconds(name: str, value: Any) -> float:
    if _positive(name, value) > _LONGEST:
        raise ValueError(f"{name}={value!r}: more than {_LONGEST} s is too long to be meant")
    return float(value)


def _natural(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}={value!r}: it has to be a whole number, 0 or more")
    return value


def _at_least_zero(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name}={value!r}: it has to be a number, 0 or more")
    return value


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


def _memory(name: str, value: Any) -> float | None:
    if value is None:
        return None
    amount = parse_memory(value)
    if not isinstance(value, str) and amount < _LEAST_MEMORY:
        raise ValueError(f"{name}={value!r}: {value!r} means {value!r} MB; write '{value!r}GB'")
    if amount <= 0:
        raise ValueError(f"{name}={value!r}: it has to be above 0")
    return float(amount)


def _worker_limit(name: str, value: Any) -> float:
    if value is None or value == math.inf:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != int(value):
        raise ValueError(f"{name}={value!r}: it has to be a whole number, 1 or more")
    return int(value)


def _accelerators(name: str, value: Any) -> list[str]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(number) for number in range(_natural(name, value))]
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name}={value!r}: give their number, or a list of their names")
    names = [str(one) for one in value]
    if len(set(names)) != len(names):
        raise ValueError(f"{name}={value!r}: a name is there twice")
    return names


def _ports(name: str, value: Any) -> list[int]:
    if value is None:
        return []
    try:
        first, second = value
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r}: give a pair of ports to listen on; for one port: worker_port=") from error
    if first == second:
        raise ValueError(f"{name}={value!r}: the ports are the same; for one port: worker_port=")
    return [check_port(name, first), check_port(name, second)]


def _address(name: str, value: Any) -> str:
    return resolve(_text(name, value))


def _selector(name: str, value: Any) -> ManagerSelector:
    if isinstance(value, type) or not callable(getattr(value, "sort_managers", None)):
        raise TypeError(f"{name}={value!r}: a selector is an object with a method sort_managers(ready, names)")
    return value  # type: ignore[no-any-return]  # checked above


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name}={value!r}: it has to be a text, and not an empty one")
    return value


def _label(name: str, value: Any) -> str:
    if "/" in _text(name, value) or value in (".", ".."):
        raise ValueError(f"{name}={value!r}: it names a folder, and can be no path")
    return str(value)


def _path(_name: str, value: Any) -> Path:
    return Path(value)


def _folder(name: str, value: Any) -> str:
    return _text(name, os.fspath(value))


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: it is True or False")
    return value


def _template(name: str, value: Any) -> str:
    return check_template(name, MANAGER if value is None else value, {*TEMPLATE_KEYS, *SETTINGS})


def _command(_name: str, value: Any) -> list[str]:
    return interchange_command(value)


def _encrypted(name: str, value: Any) -> bool:
    if value is None:
        return True
    if value not in (True, False):
        raise ValueError(f"{name}={value!r}: it is True, False, or None for True")
    return bool(value)


def _field(check: Callable[[str, Any], Any]) -> Any:
    """Return a field whose value goes through `check(name, value)`; what that raises names the parameter."""

    def convert(value: Any, _instance: Any, field: attrs.Attribute[Any]) -> Any:
        try:
            return check(field.name, value)
        except (TypeError, ValueError) as error:
            named = str(error).startswith(field.name)
            raise ConfigurationError(str(error) if named else f"{field.name}={value!r}: {error}") from error

    return attrs.field(converter=attrs.Converter(convert, takes_self=True, takes_field=True))


@attrs.frozen(kw_only=True)
class Options:
    """The parameters of `HighThroughputExecutor`, in canonical form; the executor's docstring explains them."""

    label: str = _field(_label)
    address: str | None = _field(_optional(_address))
    worker_port: int | None = _field(_optional(check_port))
    worker_ports: list[int] = _field(_ports)
    worker_port_range: tuple[int, int] = _field(check_port_range)
    interchange_port_range: tuple[int, int] = _field(check_port_range)
    loopback_address: str = _field(_address)
    cores_per_worker: float = _field(_positive)
    mem_per_worker: float | None = _field(_memory)
    max_workers: float = _field(_worker_limit)
    max_workers_per_node: float = _field(_worker_limit)
    prefetch_capacity: int = _field(_natural)
    heartbeat_threshold: float = _field(_seconds)
    heartbeat_period: float = _field(_seconds)
    poll_period: float = _field(_at_least_zero)
    address_probe_timeout: float | None = _field(_optional(_seconds))
    drain_period: float | None = _field(_optional(_seconds))
    worker_logdir_root: str | None = _field(_optional(_folder))
    working_dir: str | None = _field(_optional(_folder))
    worker_debug: bool = _field(_flag)
    launch_cmd: str = _field(_template)
    interchange_launch_cmd: list[str] | None = _field(_optional(_command))
    container_image: str | None = _field(_optional(_text))
    cpu_affinity: str = _field(lambda _name, value: check_affinity(value))
    available_accelerators: list[str] = _field(_accelerators)
    manager_selector: ManagerSelector | None = _field(_optional(_selector))
    encrypted: bool = _field(_encrypted)
    cert_dir: Path | None = _field(_optional(_path))

    def __attrs_post_init__(self) -> None:
        for fault in self._contradictions():
            if fault:
                raise ConfigurationError(fault)

    def _contradictions(self) -> list[str | None]:
        both = self.max_workers, self.max_workers_per_node
        return [
            "max_workers and max_workers_per_node are the same thing, and differ: give one of them"
            if math.inf not in both and both[0] != both[1]
            else None,
            "worker_port and worker_ports are both given: give one of them"
            if self.worker_port is not None and self.worker_ports
            else None,
            f"heartbeat_threshold={self.heartbeat_threshold:g} is not above heartbeat_period={self.heartbeat_period:g}:"
            " every manager is taken for lost"
            if self.heartbeat_threshold <= self.heartbeat_period
            else None,
            "cert_dir is given, and encrypted=False: there are no keys to keep"
            if self.cert_dir is not None and not self.encrypted
            else None,
        ]

    @property
    def worker_limit(self) -> float:
        """Workers per node at most."""
        return min(self.max_workers, self.max_workers_per_node)

    @property
    def ports(self) -> list[int]:
        """The fixed ports that managers connect to."""
        return self.worker_ports if self.worker_port is None else [self.worker_port]

    @property
    def selector(self) -> ManagerSelector:
        """Decides which manager gets tasks first."""
        return RandomManagerSelector() if self.manager_selector is None else self.manager_selector
