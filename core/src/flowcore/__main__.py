"""Makes `python -m flowcore` the same as the command `flowcore`."""

from __future__ import annotations

import sys

from flowcore.cli import main

sys.exit(main())
