"""Online pseudo-zeroth-order learning: momentum feedback learned from noise in one forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from threefactor.clocked import products
from threefactor.clocked.noise import DEFAULT_SCALE, Perturbation
from threefactor.clocked.probe import Probe
from threefactor.clocked.rules.feedback import Feedback
from threefactor.clocked.rules.local import LocalLearningOptions, LocalLearningRule
from threefactor.errors import InputError, unknown_name
from threefactor.options import as_flag, as_number, refuse_unknown
from threefactor.processes import Share

__all__ = ["OPZO"]

SECOND_PASS = {"one-point": None, "two-point": 0.0}


class OPZO(LocalLearningRule):
    r"""Online pseudo-zeroth-order learning.

    .. math:: M_l \leftarrow \mu M_l + (1 - \mu)\,
              \overline{z_l[t]\, \tilde o[t]^T / \alpha}, \qquad g_l[t] = M_l \tilde e[t]

    The noise alpha z_l[t] on every hidden layer in the one forward pass correlates with the noisy
    output; the momentum feedback connection M_l, 0 at the start, gathers the correlation over the
    batch (the bar) and over time. It estimates the transposed mean Jacobian of the output by the
    layer's activity without bias (lemma 4.1). M_l is updated before it is used. The cost per step
    is that of DFA plus the noise.

    Args:
        network: see `Rule`.
        noise_scale: alpha, a number above 0 or a function of training progress (0 to 1; see
            `set_progress`). The default falls from 0.2 to 0.01.
        momentum: mu, at least 0 and below 1. Its time constant, 1/(1 - mu) time steps, should be
            long against one batch and may be longer than the training.
        points: "one-point", or "two-point": the noisy output minus that of a second, noise-free
            pass, which keeps its own neuron state and shares the dropout mask.
        divide_by_scale: whether M_l has the factor 1/alpha of the formula. It is left out by
            default, as in the paper's runs: it rescales the gradient, which an adaptive optimiser
            offsets.
        noise_distribution, noise_position, antithetic, generator: see `Perturbation`.
        **options: see `LocalLearningRule`, `FeedbackRule` and `Rule`.

    Raises:
        InputError: if the momentum or the noise scale is out of its range.
        ConfigurationError: if a name is not known.

    Example:
        >>> import torch
        >>> from threefactor import clocked
        >>> net = clocked.fc(4, (8,), 3)
        >>> rule = clocked.OPZO(net, noise_scale=0.2, momentum=0.99999)
        >>> result = rule.step(torch.rand(2, 4), torch.tensor([0, 2]), steps=6)
        >>> result.output.shape
        torch.Size([2, 3])

    Source: Xiao et al. 2026 (OPZO), section 4, equations 6 to 8, appendix C.2.2.
    """

    signal = "M e, feedback from the output that gathers its correlation with the layer's noise"

    def __init__(
        self,
        network: nn.Module,
        *,
        noise_scale: float | Callable[[float], float] = DEFAULT_SCALE,
        momentum: float = 0.99999,
        points: str = "one-point",
        divide_by_scale: bool = False,
        noise_distribution: str = "gaussian",
        noise_position: str = "after",
        antithetic: bool = True,
        generator: torch.Generator | None = None,
        **options: Unpack[LocalLearningOptions],
    ) -> None:
        refuse_unknown(type(self), {"perturbation"} & options.keys())  # it makes its own
        if points not in SECOND_PASS:
            raise unknown_name("number of points", points, SECOND_PASS)
        if not 0.0 <= as_number("momentum", momentum) < 1.0:
            raise InputError(f"momentum is {momentum}; give a number of at least 0 and below 1")
        noise = Perturbation(noise_scale, noise_distribution, noise_position, antithetic, generator)
        super().__init__(network, perturbation=noise, **options)
        self.momentum = momentum
        self.divide_by_scale = as_flag("divide_by_scale", divide_by_scale)
        self.second_pass = SECOND_PASS[points]
        self.start_feedback(0.0)

    def synchronise(self, share: Share) -> None:
        """All processes have learned the same M, from the outputs and the noise of all samples."""

    def send_back(
        self,
        feedback: Sequence[Feedback],
        layers: Sequence[Probe],
        output: Tensor,
        error: Tensor,
    ) -> list[Tensor]:
        if self.batch_share is not None:  # M gathers the correlation over the whole batch
            output = self.batch_share.gather(output)
        errors = []
        for connection, layer in zip(feedback, layers, strict=True):
            assert layer.whole_noise is not None
            # The layers hold alpha z, so z itself already costs one division by alpha.
            divisor = layer.noise_scale ** (2 if self.divide_by_scale else 1)
            rate = (1.0 - self.momentum) / (len(output) * divisor)
            noise = connection.gather(layer.whole_noise)
            # In place: with many outputs M is too large to exist twice.
            products.add_product_(
                connection.matrix, output.t(), noise, beta=self.momentum, alpha=rate
            )
            errors.append(connection(error))
        return errors
