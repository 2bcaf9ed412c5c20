"""What the interchange and the managers are told when they start, as plain data."""

from __future__ import annotations

import base64
import socket
from pathlib import Path
from typing import Any, Final

from flowcore.serialize import dumps
from flowcore_htex import private_folder
from flowcore_htex.addresses import local_addresses
from flowcore_htex.matching import RandomManagerSelector
from flowcore_htex.options import Options
from flowcore_htex.search import search_path

_PROBE: Final = 30


def interchange_settings(options: Options, logdir: str, log_level: int | None, cert_dir: str | None) -> dict[str, Any]:
    """Return what an interchange needs to know, its sockets excepted."""
    selector = options.selector
    return {
        "label": options.label,
        "log": str(Path(logdir) / "interchange.log"),
        "log_level": log_level,
        "address": options.address,
        "ports": options.ports,
        "port_range": options.worker_port_range,
        "client": options.loopback_address,
        "client_port_range": options.interchange_port_range,
        "cert_dir": cert_dir,
        "heartbeat_period": options.heartbeat_period,
        "heartbeat_threshold": options.heartbeat_threshold,
        "prefetch_capacity": options.prefetch_capacity,
        "cores_per_worker": options.cores_per_worker,
        "mem_per_worker": options.mem_per_worker,
        "accelerators": options.available_accelerators,
        "manager_selector": ""
        if type(selector) is RandomManagerSelector
        else base64.b64encode(dumps(selector)).decode(),
        "sys_path": search_path(),
    }


def manager_settings(
    options: Options, logdir: str, worker_logdir: str, log_level: int | None, cert_dir: str | None
) -> dict[str, Any]:
    """Return what a manager needs to know, its run and its way to the interchange excepted."""
    return {
        "label": options.label,
        "logdir": logdir,
        "worker_logs": worker_logdir if options.worker_logdir_root else "",
        "log_level": log_level,
        "socket_host": socket.gethostname(),
        "socket_view": private_folder.view(),
        "addresses": [options.address] if options.address is not None else local_addresses(),
        "cert_dir": cert_dir,
        "address_probe_timeout": options.address_probe_timeout or _PROBE,
        "heartbeat_period": options.heartbeat_period,
        "heartbeat_threshold": options.heartbeat_threshold,
        "poll_period": options.poll_period,
        "drain_period": options.drain_period,
        "max_workers": None if options.worker_limit == float("inf") else options.worker_limit,
        "cores_per_worker": options.cores_per_worker,
        "mem_per_worker": options.mem_per_worker,
        "accelerators": options.available_accelerators,
        "cpu_affinity": options.cpu_affinity,
        "sys_path": search_path(),
    }
