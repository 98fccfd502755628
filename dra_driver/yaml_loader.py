"""PyYAML's safe loader, in C where PyYAML has it, for what is read often or by people who wait.

A module of its own, since whoever seldom reads YAML imports it when it does.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

SAFE_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
