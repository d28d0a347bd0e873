"""Zeroth-order learning by node perturbation: a scalar loss times the noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked.noise import DEFAULT_SCALE, Perturbation
from threefactor.clocked.rules.base import Rule, RuleOptions, TimeStep
from threefactor.errors import unknown_name
from threefactor.options import refuse_unknown

__all__ = ["ZO"]

SECOND_PASS = {"one-point": None, "one-sided": 0.0, "two-point": -1.0}


class ZO(Rule):
    r"""Zeroth-order learning: every neuron gets a scalar loss times its own noise.

    .. math:: g_l[t] = \frac{\tilde L[t]}{\alpha} z_l[t]
              \quad\text{or}\quad \frac{\tilde L - L(0)}{\alpha} z_l
              \quad\text{or}\quad \frac{L(+) - L(-)}{2\alpha} z_l

    for one-point, one-sided and two-point estimation. Unbiased as alpha tends to 0 on a smooth
    network, with a variance that grows with the number of perturbed neurons. The second forward
    pass of the last two keeps its own neuron state and shares the dropout mask; traces and local
    derivatives are those of the pass with +alpha z.

    Args:
        network: see `Rule`.
        points: "one-point", "one-sided" or "two-point".
        noise_scale, noise_distribution, noise_position, antithetic, generator: see `Perturbation`.
            Antithetic pairs mean little to the one-sided and two-point forms; leave them on for
            the one-point form.
        **options: see `Rule`.

    Raises:
        ConfigurationError: if a name is not known.

    Source: Xiao et al. 2026 (OPZO), section 3.2, lemmas 3.1 and 3.2.
    """

    signal = "the sample's loss times the layer's own noise"

    def __init__(
        self,
        network: nn.Module,
        *,
        points: str = "one-point",
        noise_scale: float | Callable[[float], float] = DEFAULT_SCALE,
        noise_distribution: str = "gaussian",
        noise_position: str = "after",
        antithetic: bool = True,
        generator: torch.Generator | None = None,
        **options: Unpack[RuleOptions],
    ) -> None:
        refuse_unknown(type(self), {"perturbation"} & options.keys())  # it makes its own
        if points not in SECOND_PASS:
            raise unknown_name("number of points", points, SECOND_PASS)
        noise = Perturbation(noise_scale, noise_distribution, noise_position, antithetic, generator)
        super().__init__(network, perturbation=noise, **options)
        self.points = points
        self.second_pass = SECOND_PASS[points]

    def layer_errors(self, step: TimeStep) -> Sequence[Tensor]:
        losses = step.losses
        if step.second_losses is not None:
            losses = losses - step.second_losses
            if self.points == "two-point":
                losses = losses / 2
        errors = []
        for layer in step.layers:
            assert layer.noise is not None
            # The layers hold alpha z: one more alpha in the divisor.
            factor = (losses / layer.noise_scale**2).unsqueeze(1)
            errors.append(factor * layer.noise.reshape(len(factor), -1))
        return errors
