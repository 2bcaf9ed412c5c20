"""Where managers can reach the interchange: local interfaces, checked addresses, listening sockets."""

from __future__ import annotations

import array
import contextlib
import ipaddress
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

_BACKLOG: Final = 4096
_TRIES: Final = 200
_SIOCGIFCONF: Final = 0x8912


def resolve(address: str) -> str:
    """Return the address as an IPv4 or IPv6 literal; a name is looked up.

    Raises:
        ValueError: it is neither an address nor a name that resolves.
    """
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{address!r} is no IP address, and no host of that name is known: {error}") from error
    return str(found[0][4][0])


def local_addresses() -> list[str]:
    """Return the addresses of this host's interfaces, asked of the kernel alone; loopback ones come last."""
    found = [*_ipv4(), *_ipv6()] or ["127.0.0.1"]
    usable = [address for address in dict.fromkeys(found) if not ipaddress.ip_address(address).is_link_local]
    return sorted(usable, key=lambda address: ipaddress.ip_address(address).is_loopback)


def _ipv4() -> list[str]:
    import fcntl

    entry = struct.calcsize("16sH2x4s16x" if struct.calcsize("P") == 8 else "16sH2x4s8x")
    space = array.array("B", bytes(entry * 256))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("iL", len(space), space.buffer_info()[0])
        size = struct.unpack("iL", fcntl.ioctl(sock.fileno(), _SIOCGIFCONF, request))[0]
    data = space.tobytes()
    return [socket.inet_ntoa(data[start + 20 : start + 24]) for start in range(0, size, entry)]


def _ipv6() -> list[str]:
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as stream:  # noqa: PTH123 - one line is enough
            return [str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in stream]
    except OSError:
        return []


def listen_on_ports(
    address: str | None, ports: Sequence[int], port_range: tuple[int, int] | None
) -> list[socket.socket]:
    """Return listening sockets on each of `ports`, or else on one free port of the range.

    Args:
        address: the interface to listen on; one that is not this host's (or None) stands for all of them.
        ports: fixed ports.
        port_range: first port and the one after the last; used where there are no fixed ports.

    Raises:
        OSError: a port is taken, or all are.
    """
    where = _interface(address)
    if ports:
        return _listen_on_all(where, ports)
    assert port_range is not None
    low, high = port_range
    for port in random.sample(range(low, high), min(_TRIES, high - low)):
        try:
            return [listen(where, port)]
        except OSError:
            continue
    raise OSError(f"no port from {low} to {high - 1} is free")


def _listen_on_all(where: str | None, ports: Sequence[int]) -> list[socket.socket]:
    listeners: list[socket.socket] = []
    for port in ports:
        try:
            listeners.append(listen(where, port))
        except OSError as error:
            for listener in listeners:
                listener.close()
            raise OSError(f"port {port} cannot be listened on: {error}") from error
    return listeners


def listen(address: str | None, port: int) -> socket.socket:
    """Return a socket that listens at one port; None stands for all interfaces."""
    sock = _bound(address, port)
    try:
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def kept(address: str | None, ports: Sequence[int]) -> Iterator[None]:
    """Keep the system from giving away ports where nobody listens now, and `listen_on_ports` soon will.

    Many systems take the ports of outgoing connections from the range that these are in. A port that cannot be kept,
    as it is taken or the address is another host's, is left alone.
    """
    with contextlib.ExitStack() as stack:
        for port in ports:
            with contextlib.suppress(OSError):
                stack.enter_context(_bound(_interface(address), port))
        yield


def _bound(address: str | None, port: int) -> socket.socket:
    family = socket.AF_INET6 if address is None and socket.has_dualstack_ipv6() else socket.AF_INET
    if address is not None and ":" in address:
        family = socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address is None else 1)
        sock.bind((address or ("::" if family == socket.AF_INET6 else "0.0.0.0"), port))  # noqa: S104 - CURVE guards it
    except OSError:
        sock.close()
        raise
    return sock


def _interface(address: str | None) -> str | None:
    """Return the address where it is one of this host, and else None."""
    return address if address is not None and _is_ours(address) else None


def _is_ours(address: str) -> bool:
    return address in local_addresses() or ipaddress.ip_address(address).is_loopback


def check_port_range(name: str, ports: Sequence[int]) -> tuple[int, int]:
    """Return a range of ports as (first, one after the last), or raise a `ValueError` naming the parameter."""
    try:
        low, high = (int(port) for port in ports)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is a pair of ports such as (54000, 55000), not {ports!r}") from error
    if not 1024 <= low < high <= 65536:
        raise ValueError(f"{name}={ports!r}: give two ports from 1024 to 65535, the lower one first")
    return low, high


def check_port(name: str, port: int) -> int:
    """Return a port, or raise a `ValueError` naming the parameter."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"{name}={port!r}: a port is a number from 1 to 65535")
    return port
