"""The settings of an experiment: typed, frozen, validated when made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform

from threefactor import clocked
from threefactor.clocked.convnets import ACTIVITY_SCALE
from threefactor.clocked.torch_losses import UNSUPPORTED
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.options import options_of
from threefactor.plugins import registry
from threefactor.readable import clipped

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
    "RegisteredLossSettings",
    "RegisteredNetworkSettings",
    "ResNetSettings",
    "RuleSettings",
    "SchedulerSettings",
    "Settings",
    "SpikeCountSettings",
    "StoppingSettings",
    "TrackSettings",
    "make_settings",
]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Class = TypeVar("_Class")
LARGEST, MOST_LAYERS, MOST_NESTED, MOST_NAMED = 2**31 - 1, 1000, 20, 10
MOST_LETTERS, TINY, HUGE = 4000, 1e-30, 1e38


def _no_guess(value: Any) -> Any:
    """Refuse booleans and strings, which pydantic would convert to numbers."""
    if isinstance(value, (bool, str, bytes)):
        raise ValueError("give a number")
    return value


def _plain_options(value: Any, depth: int = 0) -> Any:
    """Return options as JSON would give them back, and refuse what it cannot hold."""
    if isinstance(value, Mapping) and depth < MOST_NESTED:
        if not all(isinstance(key, str) for key in value):
            raise ValueError("give options by name")
        return {key: _plain_option(key, one, depth) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and depth < MOST_NESTED:
        return [_plain_options(one, depth + 1) for one in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("give a smaller number")
        return _in_bounds(value)
    if value is None or isinstance(value, (bool, str)):
        return value
    raise ValueError("it cannot be written to config.json")


def _plain_option(key: str, value: Any, depth: int) -> Any:
    try:
        return _plain_options(value, depth + 1)
    except ValueError as problem:
        raise ValueError(f"{key} is {clipped(value)}: {problem}") from None


def _in_bounds(value: Any) -> Any:
    """Refuse a number that single precision cannot hold, or only with few digits."""
    if not (value == 0 or HUGE >= abs(value) >= TINY):
        raise ValueError(
            f"give 0, or a number between {TINY:g} and {HUGE:g}, which single precision holds"
        )
    return value


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def _settings(given: type[_Class]) -> type[_Class]:
    """Make a frozen dataclass that is validated when made, with errors of this library."""
    made: Any = dataclass(frozen=True, config=_STRICT)(given)
    make = made.__init__

    @wraps(make)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        try:
            make(self, *args, **values)
        except ValidationError as problem:
            raise _refusal(problem, made) from None

    made.__init__ = checked
    return cast("type[_Class]", made)


Count = Annotated[int, BeforeValidator(_no_guess), Field(le=LARGEST)]
Real = Annotated[float, BeforeValidator(_no_guess), AfterValidator(_in_bounds)]
Flag = Annotated[bool, Strict()]
Size = Annotated[Count, Field(ge=1)]
Depth = Annotated[Count, Field(ge=1, le=MOST_LAYERS)]
Threshold = Annotated[Real, Field(gt=0)]
Options = Annotated[dict[str, Any], BeforeValidator(_plain_options)]
OneOrMore = Annotated[
    Annotated[Size, Tag("one")]
    | Annotated[tuple[Size, ...], Field(min_length=1), Tag("one per layer")],
    Discriminator(lambda value: "one per layer" if isinstance(value, (list, tuple)) else "one"),
]
FlagOrMore = Annotated[
    Annotated[Flag, Tag("one")] | Annotated[tuple[Flag, ...], Tag("one per layer")],
    Discriminator(lambda value: "one per layer" if isinstance(value, (list, tuple)) else "one"),
]
_NETWORKS = ("fc", "conv5", "conv9", "nf-resnet34", "events-fc", "own-clocked", "own-events")
_LOSSES = ("cross-entropy", "spike-count", "first-spike", "own")
_REGISTERED = "registered"
_KINDS = (*_NETWORKS, *_LOSSES, _REGISTERED, "one", "one per layer")
registry.reserve("network", _NETWORKS)
registry.reserve("loss", _LOSSES)


@_settings
class DataSettings:
    """Which data, and how much of it: the first `train` and `test` samples, or all.

    `folds` splits the training samples into that many folds; the run is tested on fold `fold`.
    `padding`, `flip` and `cutout` augment the batches for training, see `data.Augmentation`.
    `sort` orders the events of recordings whose time runs backwards, otherwise an error.
    `window` is the time over which an image becomes spikes for an event-driven network, s.
    `validation` is the share of the training samples that is held out to choose the best epoch,
    at random (`validation_seed`), class by class; it is taken after all others.
    `place` is where the samples lie while a network trains: on its "device", in memory of the
    "host", or on "disk"; "auto" takes the first of these that has room.
    `options` are those of one's own data (`images`, `events`, `spikes`, `tensors`, `huggingface`),
    or of a function registered with `threefactor.register_data`.
    """

    name: str = "digits"
    train: Count | None = Field(default=None, ge=1)
    test: Count | None = Field(default=None, ge=1)
    folds: Count | None = Field(default=None, ge=2)
    fold: Count = Field(default=0, ge=0)
    padding: Count = Field(default=0, ge=0)
    flip: Flag = False
    cutout: Count = Field(default=0, ge=0)
    sort: Flag = False
    window: Real = Field(default=0.1, gt=0)
    validation: Real | None = Field(default=None, gt=0, lt=1)
    validation_seed: Count = Field(default=0, ge=0, lt=2**31)
    place: Literal["auto", "device", "host", "disk"] = "auto"
    options: Options = Field(default_factory=dict)


_LIF = {name: option.default for name, option in options_of(clocked.LIF).items()}


@_settings
class NeuronSettings:
    """The neurons of every network on a time grid; see `clocked.LIF` for the fields."""

    leak: Real = Field(default=_LIF["leak"], ge=0, le=1)
    threshold: Real = Field(default=_LIF["threshold"], gt=0)
    dropout: Real = Field(default=_LIF["dropout"], ge=0, lt=1)
    surrogate_width: Real = Field(default=_LIF["surrogate_width"], gt=0)
    reset: clocked.Reset = _LIF["reset"]
    learn_leak: Flag = _LIF["learn_leak"]
    learn_threshold: Flag = _LIF["learn_threshold"]


@_settings
class ClockedNetworkSettings(NeuronSettings):
    """A fully connected network on a time grid; see `clocked.fc` for the fields."""

    kind: Literal["fc"] = "fc"
    hidden: tuple[Size, ...] = Field(default=(800, 800), max_length=MOST_LAYERS)
    dropout: Real = Field(default=0.2, ge=0, lt=1)
    recurrent: FlagOrMore = False


@_settings
class ConvNetworkSettings(NeuronSettings):
    """A convolutional network on a time grid; see `clocked.conv5` for the fields."""

    kind: Literal["conv5", "conv9"] = "conv5"
    width: Real = Field(default=1.0, gt=0, le=100)
    scale: Real = Field(default=ACTIVITY_SCALE, gt=0)


@_settings
class ResNetSettings(NeuronSettings):
    """A residual network on a time grid; see `clocked.nf_resnet34` for the fields."""

    kind: Literal["nf-resnet34"] = "nf-resnet34"
    width: Real = Field(default=1.0, gt=0, le=100)
    depths: tuple[Depth, Depth, Depth, Depth] = (3, 4, 6, 3)
    scale: Real = Field(default=ACTIVITY_SCALE, gt=0)


@_settings
class EventNetworkSettings:
    """A network of exact spike times; see `events.fc` for the fields.

    `max_spikes` is one number for all layers, or as many as `thresholds` may be.
    """

    kind: Literal["events-fc"] = "events-fc"
    hidden: tuple[Size, ...] = Field(default=(800,), max_length=MOST_LAYERS)
    tau_s: Real = Field(default=0.130, gt=0)
    thresholds: tuple[Threshold, ...] = Field(default=(0.2, 0.7), min_length=1)
    duration: Real = Field(default=0.2, gt=0)
    max_spikes: OneOrMore = 30
    weight_ranges: tuple[tuple[Real, Real], ...] = Field(default=((-1.0, 1.0),), min_length=1)


@_settings
class RegisteredNetworkSettings:
    """A network that was registered with `threefactor.register_network`.

    Attributes:
        kind: the name under which it was registered.
        engine: which engine runs it; so that a run can be read where the network is not known.
        options: those of the function that builds it.
    """

    kind: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]
    engine: registry.EngineName
    options: Options = Field(default_factory=dict)


@_settings
class OwnNetworkSettings:
    """A description of the user's own network, which settings cannot build.

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


@_settings
class RuleSettings:
    """A rule by name, with its options; [start, end] as noise_scale is a linear schedule."""

    name: str = "opzo"
    options: Options = Field(default_factory=dict)


@_settings
class CrossEntropySettings:
    """Cross entropy with this share of mean squared error; see `clocked.CrossEntropyMSE`."""

    kind: Literal["cross-entropy"] = "cross-entropy"
    mse_weight: Real = Field(default=0.05, ge=0, le=1)


@_settings
class SpikeCountSettings:
    """Target spike counts of the outputs; see `events.SpikeCount`."""

    kind: Literal["spike-count"] = "spike-count"
    true: Real = Field(default=15.0, ge=0)
    false: Real = Field(default=3.0, ge=0)


@_settings
class FirstSpikeSettings:
    """Times of the outputs' first spikes; see `events.FirstSpike`."""

    kind: Literal["first-spike"] = "first-spike"
    true: Real = Field(default=0.075, ge=0)
    false: Real = Field(default=0.095, ge=0)


@_settings
class OwnLossSettings:
    """A description of the user's own loss, which settings cannot build."""

    kind: Literal["own"]
    name: str
    options: Options = Field(default_factory=dict)


@_settings
class RegisteredLossSettings:
    """A loss of `torch.nn`, or one registered with `threefactor.register_loss`, by its name."""

    kind: Annotated[str, Field(min_length=1, max_length=MOST_LETTERS)]
    options: Options = Field(default_factory=dict)


def _kind(default: str, known: tuple[str, ...], registered: str) -> Discriminator:
    """Tell the members of a union apart by their kind, which older runs may lack.

    A kind that is not known is that of a registered part if the field is there which these alone
    have: a run can be read without its plugins.
    """

    def find(value: Any) -> Any:
        if isinstance(value, Mapping):
            kind = value.get("kind", default)
            return _REGISTERED if kind not in known and registered in value else kind
        kind = getattr(value, "kind", default)
        return kind if kind in known else _REGISTERED

    return Discriminator(find)


NetworkSettings = Annotated[
    Annotated[ClockedNetworkSettings, Tag("fc")]
    | Annotated[ConvNetworkSettings, Tag("conv5")]
    | Annotated[ConvNetworkSettings, Tag("conv9")]
    | Annotated[ResNetSettings, Tag("nf-resnet34")]
    | Annotated[EventNetworkSettings, Tag("events-fc")]
    | Annotated[OwnNetworkSettings, Tag("own-clocked")]
    | Annotated[OwnNetworkSettings, Tag("own-events")]
    | Annotated[RegisteredNetworkSettings, Tag(_REGISTERED)],
    _kind("fc", _NETWORKS, "engine"),
]
LossSettings = Annotated[
    Annotated[CrossEntropySettings, Tag("cross-entropy")]
    | Annotated[SpikeCountSettings, Tag("spike-count")]
    | Annotated[FirstSpikeSettings, Tag("first-spike")]
    | Annotated[OwnLossSettings, Tag("own")]
    | Annotated[RegisteredLossSettings, Tag(_REGISTERED)],
    _kind("cross-entropy", _LOSSES, "options"),
]


@_settings
class OptimizerSettings:
    """Any optimiser of `torch.optim` by its class name."""

    name: str = "AdamW"
    lr: Real = Field(default=2e-4, ge=0)
    options: Options = Field(default_factory=lambda: {"weight_decay": 2e-4})


@_settings
class SchedulerSettings:
    """A scheduler of `torch.optim.lr_scheduler`, stepped once an epoch; None for none.

    `BoundedStepLR` of `threefactor.training.schedulers` may be named, too. `ReduceLROnPlateau` goes
    by the validation loss, or by the training loss if there are no validation data.

    The option value "epochs" stands for the number of epochs.
    """

    name: str | None = "CosineAnnealingLR"
    options: Options = Field(default_factory=lambda: {"T_max": "epochs"})


@_settings
class TrackSettings:
    """What is measured during training, without any effect on it.

    Measures are taken at the start, at the end of every epoch, and in between.

    Attributes:
        measures: names of `training.tracking.MEASURES`.
        every: batches between two measurements, counted from the start of the training; None for
            once an epoch.
        samples: number of test samples, the first ones, in batches of the run's size; an
            incomplete last batch is left out.
    """

    measures: tuple[str, ...] = Field(default=("alignment", "feedback"), min_length=1)
    every: Count | None = Field(default=None, ge=1)
    samples: Count = Field(default=100, ge=1)


@_settings
class StoppingSettings:
    """When a training ends before its last epoch.

    Attributes:
        patience: after so many epochs in a row that were not better on the validation data.
        least: by how much an epoch has to be better than all before; an accuracy is a share.
    """

    patience: Count = Field(default=10, ge=1)
    least: Real = Field(default=0.0, ge=0)


@_settings
class Settings:
    """One experiment.

    Attributes:
        recipe: name of the recipe it came from.
        seed: seeds initial weights, feedback, noise, dropout and the order of the data.
        epochs: passes over the training data.
        batch_size: samples per batch.
        steps: number of time steps T for which an image is shown, or number of frames of a
            recording; None for event-driven networks, which have no time grid.
        update: an optimiser step after the whole "sequence" (OTTT_A) or at each "step" (OTTT_O).
        dtype: of weights and data.
        start: run folder from whose last checkpoint the network is taken, or file of weights, see
            `load_weights`; None for fresh weights.
        start_prefix: taken off the names of all tensors in that file, as "module."
        hardware_noise: standard deviation of gaussian noise on the membrane potential of every
            hidden neuron at every time step, in training and in testing, as of imprecise
            hardware; None for none. Rules with noise of their own use this noise instead.
        clip_norm: all gradients together are scaled down to this norm before an optimiser step, if
            they have a larger one; None for no limit.
        clip_value: each number of a gradient is cut to this size; None for no limit.
        stopping: when the training ends before its last epoch; None for never.
        track: what is measured during training; None for nothing.
    """

    recipe: str = Field(min_length=1, max_length=MOST_LETTERS)
    seed: Count = Field(default=0, ge=0, lt=2**31)
    epochs: Count = Field(default=50, ge=1)
    batch_size: Count = Field(default=128, ge=1)
    steps: Count | None = Field(default=6, ge=1)
    update: Literal["sequence", "step"] = "sequence"
    dtype: Literal["float32", "float64"] = "float32"
    start: str | None = Field(default=None, min_length=1, max_length=MOST_LETTERS)
    start_prefix: str = Field(default="", max_length=MOST_LETTERS)
    hardware_noise: Real | None = Field(default=None, gt=0)
    clip_norm: Real | None = Field(default=None, gt=0)
    clip_value: Real | None = Field(default=None, gt=0)
    data: DataSettings = Field(default_factory=DataSettings)
    network: NetworkSettings = Field(default_factory=ClockedNetworkSettings)
    rule: RuleSettings = Field(default_factory=RuleSettings)
    loss: LossSettings = Field(default_factory=CrossEntropySettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    stopping: StoppingSettings | None = None
    track: TrackSettings | None = None

    @model_validator(mode="after")
    def _fits_engine(self) -> Settings:
        if isinstance(self.network, OwnNetworkSettings):  # it was trained with them
            return self
        if self.start_prefix and self.start is None:
            raise ValueError(
                f"start_prefix is {clipped(self.start_prefix)} and start null; give the file of "
                "weights, too"
            )
        if self.data.fold and self.data.folds is None:
            raise ValueError(
                f"data.fold is {self.data.fold} and data.folds null; give the number of folds, too"
            )
        if self.data.validation_seed and self.data.validation is None:
            raise ValueError(
                f"data.validation_seed is {self.data.validation_seed} and data.validation null; "
                "give the share that is held out, too"
            )
        engine = getattr(self.network, "engine", None)
        if isinstance(self.network, EventNetworkSettings) or engine == "events":
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
        elif self.data.window != DataSettings.window:
            raise ValueError(
                f"data.window is {self.data.window}; it is the time over which an event-driven "
                "network gets an image, and a clocked one is shown it for so many steps: leave it "
                "out"
            )
        elif isinstance(self.loss, (SpikeCountSettings, FirstSpikeSettings)):
            raise ValueError(
                f"loss.kind is {self.loss.kind!r}; the read-out of a clocked network does not "
                "spike: give 'cross-entropy' or a loss of torch.nn"
            )
        return self


_ADAPTER = TypeAdapter(Settings)


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Build settings from nested plain values, such as those of a config.json.

    Raises:
        ConfigurationError: naming every field that is unknown or out of its range.
    """
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"settings are {clipped(values)}; give them by name")
    given = dict(values)
    groups: tuple[Literal["network", "loss"], ...] = ("network", "loss")
    for group in groups:
        part = given.get(group)
        found = registry.entry(group, part.get("kind")) if isinstance(part, Mapping) else None
        if found is not None and isinstance(part, Mapping):
            engine = {"engine": found.engine} if group == "network" else {}
            given[group] = {**engine, "options": {}, **part}
    try:
        return _ADAPTER.validate_python(given)
    except ValidationError as problem:
        raise _refusal(problem, Settings) from None


_PARTS = {
    "data": DataSettings,
    "rule": RuleSettings,
    "optimizer": OptimizerSettings,
    "scheduler": SchedulerSettings,
    "stopping": StoppingSettings,
    "track": TrackSettings,
    "fc": ClockedNetworkSettings,
    "conv5": ConvNetworkSettings,
    "conv9": ConvNetworkSettings,
    "nf-resnet34": ResNetSettings,
    "events-fc": EventNetworkSettings,
    "cross-entropy": CrossEntropySettings,
    "spike-count": SpikeCountSettings,
    "first-spike": FirstSpikeSettings,
}
"""The settings of a group, or of a kind of network or loss."""


def _refusal(problem: ValidationError, whole: Any) -> ConfigurationError:
    lines = [_describe(error, whole) for error in problem.errors()[:MOST_NAMED]]
    return ConfigurationError("invalid settings: " + "; ".join(lines))


def _describe(error: Any, whole: Any) -> str:
    if not error["loc"]:
        return str(error["msg"])
    # A union adds the kind that was chosen to the path.
    path = ".".join(str(part) for part in error["loc"] if part not in _KINDS)
    if error["type"] == "union_tag_invalid":
        group: Literal["network", "loss"] = "network" if path.endswith("network") else "loss"
        tag, why = error["ctx"]["tag"], ""
        ours: tuple[str, ...] = _NETWORKS
        if group == "loss":
            ours = (*_LOSSES, *clocked.TORCH_LOSSES)
            if tag in UNSUPPORTED:
                why = f", of which a rule cannot make use: {UNSUPPORTED[tag]}"
        names = [*ours, *registry.entries(group)]
        known = ", ".join(repr(name) for name in names if not name.startswith("own"))
        return (
            f"{path}.kind = {clipped(tag)}{why}: give {known}, or register one with "
            f"threefactor.register_{group} and name its --plugin"
        )
    if error["loc"][-1] == "options" and error["type"] == "value_error":
        return f"{path}.{error['ctx']['error']}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: {error['msg']}"
    if error["type"] == "unexpected_keyword_argument":
        *groups, last = error["loc"]
        part = _PARTS.get(groups[-1]) if groups else whole
        if part is not None:
            before = path.removesuffix(str(last))
            return str(unknown_name("setting", path, [before + one.name for one in fields(part)]))
    return f"{path} = {clipped(error['input'])}: {error['msg']}"
