"""Recipes of clocked networks: the fully connected ones."""

from __future__ import annotations

from threefactor.recipes.recipe import Recipe
from threefactor.training.settings import (
    ClockedNetworkSettings,
    DataSettings,
    OptimizerSettings,
    Settings,
)

__all__ = ["CLOCKED"]

# Appendix C.2.2 of Xiao et al. 2026 (OPZO): no dropout for ZO, and a lower learning rate on MNIST.
_ZO = {"zo": {"optimizer.lr": 2e-5, "network.dropout": 0.0}}

CLOCKED: dict[str, Recipe] = {
    "digits-fc": Recipe(
        "scikit-learn's 8x8 digits, 64-200-200-10, some ten seconds (embedded data)",
        Settings(
            recipe="digits-fc",
            epochs=30,
            batch_size=64,
            data=DataSettings(name="digits"),
            network=ClockedNetworkSettings(hidden=(200, 200)),
            optimizer=OptimizerSettings(lr=2e-3),
        ),
        per_rule={"zo": {"optimizer.lr": 2e-4, "network.dropout": 0.0}},
    ),
    "mnist-fc": Recipe(
        "MNIST, 784-800-800-10, 50 epochs: OPZO paper, table 1",
        Settings(recipe="mnist-fc", data=DataSettings(name="mnist")),
        per_rule=_ZO,
    ),
    "fashion-mnist-fc": Recipe(
        "Fashion-MNIST with the settings of mnist-fc (not in the paper)",
        Settings(recipe="fashion-mnist-fc", data=DataSettings(name="fashion-mnist")),
        per_rule=_ZO,
    ),
}
