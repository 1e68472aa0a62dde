"""Students derived from a teacher: ``students="auto"``."""

from __future__ import annotations

from torch import nn

from kneepoint.spaces.configured_students import configured_family
from kneepoint.spaces.network import Network
from kneepoint.spaces.reduced_students import reduced_family
from kneepoint.spaces.students import StudentFamily


def auto_family(teacher: Network, model: nn.Module) -> StudentFamily:
    """A family of smaller versions of the teacher, its members as large as the prior prefers.

    Models of the Transformers library, and others that are built from a configuration as theirs are, get smaller
    configurations; every other network is thinned out, and loses residual blocks and full convolutions.

    Args:
        teacher: The traced model.
        model: The model itself.

    Raises:
        SpaceError: If nothing of the teacher can be made smaller.
    """
    return configured_family(model) or reduced_family(teacher)
