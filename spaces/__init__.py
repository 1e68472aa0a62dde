"""What may vary: the network's structure, policies and student families.

The public names are loaded when they are first used, so that a policy can be read without importing torch. The function
``joint_space`` is not among them, because the module of that name is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kneepoint.spaces.derived_students import auto_family
    from kneepoint.spaces.joint_space import JointSpace
    from kneepoint.spaces.lowering import lower
    from kneepoint.spaces.network import Network
    from kneepoint.spaces.policy import LayerPolicy, Policy
    from kneepoint.spaces.quant_plan import QuantPlan
    from kneepoint.spaces.students import StudentFamily

__all__ = [
    "JointSpace",
    "LayerPolicy",
    "Network",
    "Policy",
    "QuantPlan",
    "StudentFamily",
    "auto_family",
    "lower",
]

_HOMES = {
    "JointSpace": "joint_space",
    "LayerPolicy": "policy",
    "Network": "network",
    "Policy": "policy",
    "QuantPlan": "quant_plan",
    "StudentFamily": "students",
    "auto_family": "derived_students",
    "lower": "lowering",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
