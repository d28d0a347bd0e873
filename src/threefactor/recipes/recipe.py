"""What a recipe is, and how it becomes the settings of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from threefactor.errors import ConfigurationError
from threefactor.plugins.registry import Kind, entry
from threefactor.readable import clipped
from threefactor.training.build import option_names
from threefactor.training.engines import engine_of
from threefactor.training.overrides import override
from threefactor.training.registered import with_defaults
from threefactor.training.settings import Settings

__all__ = ["Recipe"]

PARTS: Mapping[str, Kind] = {"network.kind": "network", "loss.kind": "loss", "data.name": "data"}
"""The settings that may name a registered part."""


@dataclass(frozen=True)
class Recipe:
    """One experiment, and what is different for some rules.

    Attributes:
        title: one line for people.
        settings: the settings, for the rule they name. Its options go to every rule that has
            options of these names.
        per_rule: fields or options by full name that a rule changes, by the rule's name.
    """

    title: str
    settings: Settings
    per_rule: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def settings_for(
        self, rule: str | None = None, changes: Mapping[str, Any] | None = None
    ) -> Settings:
        """Return the full settings of one run, the rule's options included.

        Args:
            rule: name of the rule; by default that of the changes, or else the recipe's own.
            changes: fields or options by name, as for `--set`, after what the rule changes.

        Raises:
            ConfigurationError: if a name is not known, or a value out of its range.
        """
        changes = dict(changes or {})
        own = self.settings.rule.name if rule is None else rule
        name = changes.pop("rule.name", own)
        if rule is not None and name != rule:
            raise ConfigurationError(
                f"the rule is {rule!r} and rule.name {clipped(name)}; give one of them"
            )
        engine = engine_of(self.settings)
        defaults = engine.rule_defaults(name)
        shared = {k: v for k, v in self.settings.rule.options.items() if k in defaults}
        settings = override(
            self.settings, {"rule.name": name, "rule.options": {**defaults, **shared}}
        )
        settings = override(settings, self.per_rule.get(name, {}), option_names(settings))
        # First the registered parts, whose options the other changes may name.
        parts = {
            key: value
            for key, value in changes.items()
            if key in PARTS and entry(PARTS[key], value) is not None
        }
        settings = with_defaults(override(settings, parts))
        settings = with_defaults(override(settings, changes, option_names(settings)))
        noise = engine.noise_options(settings)
        chosen = {key.rpartition(".")[2] for key in changes}
        return override(
            settings,
            {f"rule.options.{key}": noise[key] for key in noise.keys() - chosen},
            option_names(settings),
        )
