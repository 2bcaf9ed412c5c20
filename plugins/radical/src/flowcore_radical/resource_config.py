"""What a RADICAL pilot asks its resource for."""

from __future__ import annotations

import re

import attrs

from flowcore.errors import ConfigurationError
from flowcore.parameters import whole


def _resource(_config: object, _attribute: object, value: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[\w-]+\.[\w-]+", value):
        message = f"resource is written 'site.machine', as 'local.localhost' or 'anl.polaris', not {value!r}"
        raise ConfigurationError(message)


def _project(_config: object, _attribute: object, value: str | None) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        message = f"project is the name of an allocation, or None, not {value!r}"
        raise ConfigurationError(message)


@attrs.frozen(kw_only=True)
class ResourceConfig:
    """The resources of one pilot.

    Attributes:
        resource: what RADICAL-Pilot calls the machine: 'site.machine'.
        walltime: minutes that the pilot lives.
        cpus: cores.
        gpus: GPUs.
        project: the allocation that pays; None where there are none.

    Raises:
        ConfigurationError: at construction, for a value that cannot work.
    """

    resource: str = attrs.field(default="local.localhost", validator=_resource)
    walltime: int = attrs.field(default=60, validator=whole(1, "minutes"))
    cpus: int = attrs.field(default=4, validator=whole(1, "cores"))
    gpus: int = attrs.field(default=0, validator=whole(0, "GPUs"))
    project: str | None = attrs.field(default=None, validator=_project)
