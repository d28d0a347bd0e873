"""Settings to go on with the network of a run, on hardware that is noisy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threefactor.recipes.recipe import Recipe
from threefactor.training.run_folder import RunFolder
from threefactor.training.settings import Settings, override

__all__ = ["finetuning"]

SLOWER = {"zo": 1000}
SLOWER_ELSE = 100
EPOCHS = {"spatial-bp": 1}
EPOCHS_ELSE = 5


def finetuning(
    run: str | Path,
    noise: float | None,
    rule: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Settings:
    """Return settings that fine-tune the network of a run under noise.

    They are those of the run, with its network as the start, `hardware_noise`, and as published
    for ImageNet: a hundredth of the learning rate (a thousandth for ZO), no weight decay, 5 epochs
    (1 for spatial BP).

    Args:
        run: folder of the run, whose last checkpoint is the start.
        noise: standard deviation of the noise on the membrane potentials; None for none.
        rule: name of the rule; the run's own by default.
        changes: fields or options by name, as for `--set`, after all others.

    Raises:
        CheckpointError: if the folder holds no run.
        ConfigurationError: if a name is not known, or a value out of its range.

    Source: Xiao et al. 2026 (OPZO), section 5.2 and appendix C.2.2.
    """
    before = RunFolder(run).settings()
    name = rule or before.rule.name
    optimizer = dataclasses.asdict(before.optimizer)
    optimizer["lr"] /= SLOWER.get(name, SLOWER_ELSE)
    if "weight_decay" in optimizer["options"]:
        optimizer["options"]["weight_decay"] = 0.0
    settings = override(
        before,
        {
            "start": str(run),
            "hardware_noise": noise,
            "epochs": EPOCHS.get(name, EPOCHS_ELSE),
            "optimizer": optimizer,
        },
        {},
    )
    return Recipe("fine-tuning", settings).settings_for(name, changes)
