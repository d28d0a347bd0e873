"""Settings that fine-tune the network of a run on noisy hardware."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from threefactor.recipes.clocked import CLOCKED
from threefactor.recipes.recipe import Recipe
from threefactor.training.folder.run import Run
from threefactor.training.overrides import override
from threefactor.training.settings import Settings
from threefactor.training.weights import is_weights_file

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
    (1 for spatial BP). ZO gets no dropout. The learning rate is that of a training with spatial BP:
    what made that of the run lower, ZO or an earlier fine-tuning, is undone first. An imported
    network gets the settings of the recipe `imagenet-nfresnet34-noise`.

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
    trained = Run(run)
    before = trained.settings
    name = rule or before.rule.name
    if trained.is_imported:  # the published settings do not follow from those of the import
        given = {"network": dataclasses.asdict(before.network), "dtype": before.dtype}
        begin = {"start": str(run), "hardware_noise": noise}
        return CLOCKED["imagenet-nfresnet34-noise"].settings_for(
            name, {**given, **begin, **(changes or {})}
        )
    optimizer = dataclasses.asdict(before.optimizer)
    optimizer["lr"] = _full_rate(before) / SLOWER.get(name, SLOWER_ELSE)
    if "weight_decay" in optimizer["options"]:
        optimizer["options"]["weight_decay"] = 0.0
    settings = override(
        before,
        {
            "start": str(run),
            "start_prefix": "",
            "hardware_noise": noise,
            "epochs": EPOCHS.get(name, EPOCHS_ELSE),
            "optimizer": optimizer,
            **({"network.dropout": 0.0} if name == "zo" else {}),
        },
    )
    return Recipe("fine-tuning", settings).settings_for(name, changes)


def _full_rate(run: Settings) -> float:
    """Return the learning rate that a run would have had with spatial BP, from the beginning."""
    if run.start is not None and not is_weights_file(run.start):
        return run.optimizer.lr * SLOWER.get(run.rule.name, SLOWER_ELSE)
    return run.optimizer.lr * SLOWER.get(run.rule.name, SLOWER_ELSE) / SLOWER_ELSE
