"""Recipes of networks of exact spike times."""

from __future__ import annotations

from threefactor.recipes.recipe import Recipe
from threefactor.training.settings import (
    DataSettings,
    EventNetworkSettings,
    FirstSpikeSettings,
    OptimizerSettings,
    RuleSettings,
    SchedulerSettings,
    Settings,
    SpikeCountSettings,
    TrackSettings,
)

__all__ = ["EVENTS"]


def _settings(
    recipe: str,
    data: str,
    network: EventNetworkSettings,
    rates: tuple[float, float],
    *,
    lr: float = 3e-3,
    epochs: int = 30,
    batch_size: int = 50,
    track: TrackSettings | None = None,
) -> Settings:
    """Return settings in which the paper's experiments agree, completed.

    `rates` are the strength and the target of the firing-rate regularisation.
    """
    return Settings(
        recipe=recipe,
        epochs=epochs,
        batch_size=batch_size,
        steps=None,
        data=DataSettings(name=data),
        network=network,
        rule=RuleSettings("sfdfa", {"rate_penalty": rates[0], "rate_target": rates[1]}),
        loss=SpikeCountSettings(),
        optimizer=OptimizerSettings("Adam", lr, {}),
        scheduler=SchedulerSettings(None, {}),
        track=track,
    )


def _deep(
    recipe: str,
    title: str,
    data: str,
    network: EventNetworkSettings,
    every: int,
    batch_size: int = 50,
) -> dict[str, Recipe]:
    """Return a recipe by its name: three equal hidden layers, whose angles are tracked."""
    track = TrackSettings(("alignment", "feedback", "firing"), every)
    settings = _settings(recipe, data, network, (1.0, 0.25), batch_size=batch_size, track=track)
    without_feedback = {"track.measures": ["alignment", "firing"]}
    return {recipe: Recipe(title, settings, {"exact-bp": without_feedback})}


_DFA_RATES = {"dfa": {"rule.options.rate_penalty": 1.0, "rule.options.rate_target": 0.4}}

# The published BP figures are of Bacho & Chu 2023, which has no firing-rate regularisation.
_BP = {"rule.options.rate_penalty": 0.0}


def _spoken(title: str, data: str) -> Recipe:
    """Return the experiment with the Spiking Heidelberg Digits, on a set of their layout."""
    network = EventNetworkSettings(hidden=(128,), thresholds=(1.0, 1.2), tau_s=0.100, duration=1.0)
    settings = _settings(f"{data}-events", data, network, (0.03, 2.0), lr=1e-3, epochs=150)
    return Recipe(title, settings, per_rule={"exact-bp": _BP})


# Appendix A of Bacho & Chu (SFDFA) and the authors' runs; BP as in Bacho & Chu 2023.
EVENTS: dict[str, Recipe] = {
    "mnist-events": Recipe(
        "MNIST, 784-800-10, exact spike times: SFDFA paper, table 1",
        _settings(
            "mnist-events",
            "mnist",
            EventNetworkSettings(hidden=(800,), thresholds=(0.2, 0.7)),
            (0.1, 0.2),
        ),
        per_rule={
            **_DFA_RATES,
            "exact-bp": {**_BP, "network.thresholds": [0.2, 1.3], "epochs": 100},
        },
    ),
    "emnist-events": Recipe(
        "EMNIST balanced, 784-800-47, exact spike times: SFDFA paper, table 1",
        _settings(
            "emnist-events",
            "emnist-balanced",
            EventNetworkSettings(hidden=(800,), thresholds=(0.2, 0.7)),
            (0.3, 0.2),
        ),
        per_rule={"exact-bp": _BP},
    ),
    "fashion-mnist-events": Recipe(
        "Fashion-MNIST, 784-400-400-10, exact spike times: SFDFA paper, table 1",
        _settings(
            "fashion-mnist-events",
            "fashion-mnist",
            EventNetworkSettings(hidden=(400, 400), thresholds=(0.2, 0.2, 0.7)),
            (0.3, 0.4),
            epochs=50,
        ),
        per_rule={
            "exact-bp": {
                **_BP,
                "network.thresholds": [0.13, 0.45, 0.7],
                "batch_size": 5,
                "optimizer.lr": 5e-4,
            }
        },
    ),
    "shd-events": _spoken(
        "Spiking Heidelberg Digits, 700-128-20, exact spike times: SFDFA paper, table 1", "shd"
    ),
    "shd-like-events": _spoken(
        "Your own spikes in the layout of SHD, settings of shd-events (not in the paper)",
        "shd-like",
    ),
    "digits-events": Recipe(
        "scikit-learn's 8x8 digits, 64-200-10, exact spike times (embedded data)",
        _settings(
            "digits-events",
            "digits",
            EventNetworkSettings(hidden=(200,), thresholds=(0.1, 0.3)),
            (0.1, 0.2),
            batch_size=20,
        ),
        per_rule=_DFA_RATES,
    ),
    **_deep(
        "mnist-events-deep",
        "MNIST, 784-800-800-800-10, exact spike times: SFDFA paper, figures 9 and 10",
        "mnist",
        EventNetworkSettings(hidden=(800, 800, 800), thresholds=(0.03, 0.08), tau_s=0.010),
        every=200,
    ),
    # Potentials and thresholds shrink alike, so that no spike changes; grades do.
    **_deep(
        "mnist-events-deep-scaled",
        "The same, weights and thresholds between hidden layers times 0.1 (not in the paper)",
        "mnist",
        EventNetworkSettings(
            hidden=(800, 800, 800),
            thresholds=(0.03, 0.003, 0.003, 0.08),
            tau_s=0.010,
            weight_ranges=((-1.0, 1.0), (-0.1, 0.1), (-0.1, 0.1), (-1.0, 1.0)),
        ),
        every=200,
    ),
    **_deep(
        "digits-events-deep",
        "scikit-learn's 8x8 digits, 64-100-100-100-10, exact spike times (embedded data)",
        "digits",
        EventNetworkSettings(hidden=(100, 100, 100), thresholds=(0.1, 0.3)),
        every=36,
        batch_size=20,
    ),
    "yin-yang-events": Recipe(
        "Yin-Yang, 5-100-3, one exact spike per neuron (generated; Kriener et al. 2022)",
        Settings(
            recipe="yin-yang-events",
            epochs=60,
            batch_size=50,
            steps=None,
            data=DataSettings(name="yin-yang"),
            network=EventNetworkSettings(
                hidden=(100,),
                tau_s=0.05,
                thresholds=(0.1,),
                max_spikes=1,
                weight_ranges=((-2.0, 4.0), (-0.9, 1.9)),
            ),
            rule=RuleSettings("exact-bp"),
            loss=FirstSpikeSettings(true=0.075, false=0.095),
            optimizer=OptimizerSettings("Adam", 2e-2, {}),
        ),
    ),
}
