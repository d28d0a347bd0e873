"""Extensions of the library that nobody has to edit it for.

`registry` has what is registered by name; `loading` loads the code that registers it; `digest`
tells whether that code is the same as before; `trust` decides which code a run folder may name.
"""

from threefactor.plugins.loading import (
    Plugin,
    load,
    load_installed,
    loaded,
    name_of_rule,
    recall,
)
from threefactor.plugins.registry import (
    KINDS,
    entries,
    entry,
    register_data,
    register_loss,
    register_network,
    register_recipe,
    register_rule,
    reserve,
    unregister,
)

__all__ = [
    "KINDS",
    "Plugin",
    "entries",
    "entry",
    "load",
    "load_installed",
    "loaded",
    "name_of_rule",
    "recall",
    "register_data",
    "register_loss",
    "register_network",
    "register_recipe",
    "register_rule",
    "reserve",
    "unregister",
]
