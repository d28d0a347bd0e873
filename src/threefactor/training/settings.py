"""The settings of an experiment: typed, frozen, validated when made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from threefactor.errors import ConfigurationError

__all__ = [
    "ClockedNetworkSettings",
    "ConvNetworkSettings",
    "CrossEntropySettings",
    "DataSettings",
    "EventNetworkSettings",
    "FirstSpikeSettings",
    "OptimizerSettings",
    "OwnLossSettings",
    "OwnNetworkSettings",
    "ResNetSettings",
    "RuleSettings",
    "SchedulerSettings",
    "Settings",
    "SpikeCountSettings",
    "TrackSettings",
    "make_settings",
]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Options = dict[str, Any]
_NETWORKS = ("fc", "conv5", "conv9", "nf-resnet34", "events-fc", "own-clocked", "own-events")
_KINDS = (*_NETWORKS, "cross-entropy", "spike-count", "first-spike", "own")


@dataclass(frozen=True, config=_STRICT)
class DataSettings:
    """Which data, and how much of it: the first `train` and `test` samples, or all.

    With `folds`, the training samples are split into so many, of which number `fold` is tested on.
    `padding`, `flip` and `cutout` augment the batches for training, see `data.Augmentation`.
    `sort` puts events of recordings that run backwards in time into order, which else are an error.
    `window` is the time in seconds over which an event-driven network gets an image as spikes.
    """

    name: str = "digits"
    train: int | None = Field(default=None, ge=1)
    test: int | None = Field(default=None, ge=1)
    folds: int | None = Field(default=None, ge=2)
    fold: int = Field(default=0, ge=0)
    padding: int = Field(default=0, ge=0)
    flip: bool = False
    cutout: int = Field(default=0, ge=0)
    sort: bool = False
    window: float = Field(default=0.1, gt=0)


@dataclass(frozen=True, config=_STRICT)
class ClockedNetworkSettings:
    """A network on a time grid; see `clocked.fc` for the fields."""

    kind: Literal["fc"] = "fc"
    hidden: tuple[int, ...] = (800, 800)
    leak: float = Field(default=0.5, ge=0, le=1)
    threshold: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    surrogate_width: float = Field(default=0.25, gt=0)


@dataclass(frozen=True, config=_STRICT)
class ConvNetworkSettings:
    """A convolutional network on a time grid; see `clocked.conv5` for the fields."""

    kind: Literal["conv5", "conv9"] = "conv5"
    width: float = Field(default=1.0, gt=0)
    leak: float = Field(default=0.5, ge=0, le=1)
    threshold: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=2.74, gt=0)
    surrogate_width: float = Field(default=0.25, gt=0)


@dataclass(frozen=True, config=_STRICT)
class ResNetSettings:
    """A residual network on a time grid; see `clocked.nf_resnet34` for the fields."""

    kind: Literal["nf-resnet34"] = "nf-resnet34"
    width: float = Field(default=1.0, gt=0)
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    leak: float = Field(default=0.5, ge=0, le=1)
    threshold: float = Field(default=1.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    scale: float = Field(default=2.74, gt=0)
    surrogate_width: float = Field(default=0.25, gt=0)


@dataclass(frozen=True, config=_STRICT)
class EventNetworkSettings:
    """A network of exact spike times; see `events.fc` for the fields."""

    kind: Literal["events-fc"] = "events-fc"
    hidden: tuple[int, ...] = (800,)
    tau_s: float = Field(default=0.130, gt=0)
    thresholds: tuple[float, ...] = (0.2, 0.7)
    duration: float = Field(default=0.2, gt=0)
    max_spikes: int = Field(default=30, ge=1)
    weight_ranges: tuple[tuple[float, float], ...] = ((-1.0, 1.0),)


@dataclass(frozen=True, config=_STRICT)
class OwnNetworkSettings:
    """What a network of one's own is; nothing here can make it again.

    Attributes:
        name: of its class.
        input_shape: of one sample, at one time step.
        hidden: numbers of hidden neurons, first layer to last.
        outputs: number of outputs.
        parameters: number of all parameters.
        structure: a digest of its modules, their plain attributes, and the shapes of all tensors.
    """

    kind: Literal["own-clocked", "own-events"]
    name: str
    input_shape: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int
    parameters: int
    structure: str


@dataclass(frozen=True, config=_STRICT)
class RuleSettings:
    """A rule by name, with its options; [start, end] as noise_scale is a linear schedule."""

    name: str = "opzo"
    options: Options = Field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class CrossEntropySettings:
    """Cross entropy with this share of mean squared error; see `clocked.CrossEntropyMSE`."""

    kind: Literal["cross-entropy"] = "cross-entropy"
    mse_weight: float = Field(default=0.05, ge=0, le=1)


@dataclass(frozen=True, config=_STRICT)
class SpikeCountSettings:
    """Target spike counts of the outputs; see `events.SpikeCount`."""

    kind: Literal["spike-count"] = "spike-count"
    true: float = Field(default=15.0, ge=0)
    false: float = Field(default=3.0, ge=0)


@dataclass(frozen=True, config=_STRICT)
class FirstSpikeSettings:
    """Times of the outputs' first spikes; see `events.FirstSpike`."""

    kind: Literal["first-spike"] = "first-spike"
    true: float = Field(default=0.075, ge=0)
    false: float = Field(default=0.095, ge=0)


@dataclass(frozen=True, config=_STRICT)
class OwnLossSettings:
    """What a loss of one's own is; nothing here can make it again."""

    kind: Literal["own"]
    name: str
    options: Options = Field(default_factory=dict)


def _kind(default: str) -> Discriminator:
    """Tell the members of a union apart by their kind, which older runs may lack."""

    def find(value: Any) -> Any:
        if isinstance(value, Mapping):
            return value.get("kind", default)
        return getattr(value, "kind", default)

    return Discriminator(find)


NetworkSettings = Annotated[
    Annotated[ClockedNetworkSettings, Tag("fc")]
    | Annotated[ConvNetworkSettings, Tag("conv5")]
    | Annotated[ConvNetworkSettings, Tag("conv9")]
    | Annotated[ResNetSettings, Tag("nf-resnet34")]
    | Annotated[EventNetworkSettings, Tag("events-fc")]
    | Annotated[OwnNetworkSettings, Tag("own-clocked")]
    | Annotated[OwnNetworkSettings, Tag("own-events")],
    _kind("fc"),
]
LossSettings = Annotated[
    Annotated[CrossEntropySettings, Tag("cross-entropy")]
    | Annotated[SpikeCountSettings, Tag("spike-count")]
    | Annotated[FirstSpikeSettings, Tag("first-spike")]
    | Annotated[OwnLossSettings, Tag("own")],
    _kind("cross-entropy"),
]


@dataclass(frozen=True, config=_STRICT)
class OptimizerSettings:
    """Any optimiser of `torch.optim` by its class name."""

    name: str = "AdamW"
    lr: float = Field(default=2e-4, ge=0)
    options: Options = Field(default_factory=lambda: {"weight_decay": 2e-4})


@dataclass(frozen=True, config=_STRICT)
class SchedulerSettings:
    """Any scheduler of `torch.optim.lr_scheduler`, stepped once an epoch; None for none.

    The option value "epochs" stands for the number of epochs.
    """

    name: str | None = "CosineAnnealingLR"
    options: Options = Field(default_factory=lambda: {"T_max": "epochs"})


@dataclass(frozen=True, config=_STRICT)
class TrackSettings:
    """What is measured while the network trains, without any effect on the training.

    At the start, at the end of every epoch, and between.

    Attributes:
        measures: names of `analysis.tracked.MEASURES`.
        every: batches between two measurements, counted from the start of the training; None for
            once an epoch.
        samples: test samples that are measured on, the first ones, in batches of the run's size;
            a rest that fills no batch is left out.
    """

    measures: tuple[str, ...] = Field(default=("alignment", "feedback"), min_length=1)
    every: int | None = Field(default=None, ge=1)
    samples: int = Field(default=100, ge=1)


@dataclass(frozen=True, config=_STRICT)
class Settings:
    """One experiment.

    Attributes:
        recipe: name of the recipe it came from.
        seed: seeds initial weights, feedback, noise, dropout and the order of the data.
        epochs: passes over the training data.
        batch_size: samples per batch.
        steps: time steps T: for how many a static image is shown, or into how many frames the whole
            of a recording is made; None for event-driven networks, which have no time grid.
        update: an optimiser step after the whole "sequence" (OTTT_A) or at each "step" (OTTT_O).
        dtype: of weights and data.
        start: run folder from whose last checkpoint the network is taken; None for fresh weights.
        hardware_noise: standard deviation of gaussian noise on the membrane potential of every
            hidden neuron at every time step, in training and in testing, as of imprecise
            hardware; None for none. Rules with noise of their own learn from this one in its
            place.
        track: what is measured while the network trains; None for nothing.
    """

    recipe: str
    seed: int = Field(default=0, ge=0, lt=2**31)
    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=128, ge=1)
    steps: int | None = Field(default=6, ge=1)
    update: Literal["sequence", "step"] = "sequence"
    dtype: Literal["float32", "float64"] = "float32"
    start: str | None = None
    hardware_noise: float | None = Field(default=None, gt=0)
    data: DataSettings = Field(default_factory=DataSettings)
    network: NetworkSettings = Field(default_factory=ClockedNetworkSettings)
    rule: RuleSettings = Field(default_factory=RuleSettings)
    loss: LossSettings = Field(default_factory=CrossEntropySettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    track: TrackSettings | None = None

    @model_validator(mode="after")
    def _fits_engine(self) -> Settings:
        if isinstance(self.network, OwnNetworkSettings):  # it was trained with them
            return self
        if isinstance(self.network, EventNetworkSettings):
            if self.steps is not None or self.update != "sequence":
                raise ValueError(
                    f"steps is {self.steps} and update {self.update!r}; an event-driven network "
                    'has no time grid: give steps=None, update="sequence"'
                )
            if self.data.padding or self.data.flip or self.data.cutout:
                raise ValueError(
                    "data.padding, data.flip and data.cutout augment images and frames, and an "
                    "event-driven network gets spikes: leave them out"
                )
            if self.hardware_noise is not None:
                raise ValueError(
                    f"hardware_noise is {self.hardware_noise}; it is added at every time step, "
                    "and an event-driven network has none: leave it out"
                )
        elif self.steps is None:
            raise ValueError("steps is None; give the number of time steps of a clocked network")
        elif not isinstance(self.loss, (CrossEntropySettings, OwnLossSettings)):
            raise ValueError(
                f"loss.kind is {self.loss.kind!r}; the read-out of a clocked network does not "
                "spike: give 'cross-entropy'"
            )
        return self


_ADAPTER = TypeAdapter(Settings)


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Build settings from nested plain values, such as those of a config.json.

    Raises:
        ConfigurationError: naming every field that is unknown or out of its range.
    """
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as problem:
        lines = [_describe(error) for error in problem.errors()]
        raise ConfigurationError("invalid settings: " + "; ".join(lines)) from None


def _describe(error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"])
    # A union adds the kind that was chosen to the path.
    path = ".".join(str(part) for part in error["loc"] if part not in _KINDS)
    return f"{path} = {error['input']!r}: {error['msg']}"
