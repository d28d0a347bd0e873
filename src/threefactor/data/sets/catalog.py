"""The data sets that the library knows, by name."""

from __future__ import annotations

from threefactor.data.dataset import DataFile, DataSet
from threefactor.data.sets.event_sets import EVENT_SETS
from threefactor.data.sets.imagenet import FOLDER_SETS
from threefactor.data.sets.mnist import IMAGE_SETS
from threefactor.data.sets.simulated_sets import SIMULATED_SETS
from threefactor.data.sets.spike_sets import SPIKE_SETS
from threefactor.errors import ConfigurationError, unknown_name

__all__ = ["DATASETS", "DataFile", "DataSet", "lookup"]

DATASETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (*IMAGE_SETS, *FOLDER_SETS, *SPIKE_SETS, *EVENT_SETS, *SIMULATED_SETS)
}
"""All known data sets by name."""


def lookup(name: str) -> DataSet:
    """Return the entry of a data set.

    Raises:
        ConfigurationError: there is no data set of this name.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"{name!r} is no name of a data set; give a text, as 'mnist'")
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]
