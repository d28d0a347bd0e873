"""What users register by name: rules, networks, data sets, losses, recipes.

A registered name works wherever one of the library does: in settings, on the command line, in
recipes. Nothing of the library is edited, and no name of the library can be taken.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from threefactor import clocked, events
from threefactor.errors import ConfigurationError, unknown_name
from threefactor.readable import clipped

__all__ = [
    "KINDS",
    "EngineName",
    "Entry",
    "Kind",
    "adopt",
    "entries",
    "entry",
    "loaded_by",
    "provide",
    "register_data",
    "register_loss",
    "register_network",
    "register_recipe",
    "register_recipe_file",
    "register_rule",
    "reserve",
    "unregister",
]

Kind = Literal["rule", "network", "data", "loss", "recipe"]
EngineName = Literal["clocked", "events"]
KINDS: tuple[Kind, ...] = ("rule", "network", "data", "loss", "recipe")
GIVEN_TO_DATA = ("data_dir", "steps", "dtype", "window", "sort", "room")
"""What a function that loads data gets of the experiment, if it asks for it by name."""
MOST_LETTERS = 60
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CLASS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*:[A-Za-z_]\w*")
"""A class of a plugin by its place, as in `mylib:MyRule`."""
_Made = TypeVar("_Made", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry:
    """What is registered under a name.

    Attributes:
        kind: "rule", "network", "data", "loss" or "recipe".
        name: by which settings and commands name it.
        made: the class or function; the settings of a recipe.
        engine: of a rule or network: "clocked" or "events".
        cite: BibTeX of what it is built on.
        plugin: path of the plugin that registered it; None in one's own script.
        provided: whether it is the library's own.
    """

    kind: Kind
    name: str
    made: Any
    engine: EngineName | None = None
    cite: str = ""
    plugin: str | None = None
    provided: bool = False

    @property
    def source(self) -> str:
        """Where the class or function comes from, as in "mylib.rules.MyRule"."""
        made = self.made
        if not hasattr(made, "__qualname__"):
            return type(made).__qualname__
        return f"{made.__module__}.{made.__qualname__}"


_ENTRIES: dict[tuple[str, str], Entry] = {}
_PROVIDED: dict[tuple[str, str], Entry] = {}
_RESERVED: dict[str, set[str]] = {"rule": {*clocked.RULES, *events.RULES}}
_LOADING: list[str] = []
"""The paths of the plugins that are being loaded, the innermost last."""


def register_rule(name: str, *, cite: str = "") -> Callable[[_Made], _Made]:
    """Register a class of rules: `--rule NAME` trains with it.

    Args:
        name: letters, digits, dots and hyphens.
        cite: BibTeX of what the rule is built on, for `threefactor cite` and reports.

    Returns:
        A decorator that returns the class as it is.

    Raises:
        ConfigurationError: if the name is taken, or cannot be one; or the class is no subclass of
            `clocked.Rule` or `events.Rule`, or lacks one of their methods.

    Example:
        >>> import threefactor
        >>> @threefactor.register_rule("half-opzo")
        ... class HalfOPZO(clocked.OPZO):
        ...     '''OPZO with half the error.'''
        ...
        ...     def layer_errors(self, step):
        ...         return [0.5 * error for error in super().layer_errors(step)]
        >>> clocked.RULES["half-opzo"] is HalfOPZO
        True
        >>> unregister("rule", "half-opzo")
    """

    def register(made: _Made) -> _Made:
        engines: dict[EngineName, Any] = {"clocked": clocked, "events": events}
        found = [
            (engine, room)
            for engine, room in engines.items()
            if isinstance(made, type) and issubclass(made, room.Rule)
        ]
        if not found:
            raise ConfigurationError(
                f"rule {clipped(name)} is {clipped(made)}; register a subclass of clocked.Rule or "
                "events.Rule of threefactor"
            )
        if inspect.isabstract(made):
            missing = ", ".join(sorted(getattr(made, "__abstractmethods__", ())))
            raise ConfigurationError(
                f"rule {clipped(name)} is the class {made.__qualname__}, which lacks {missing}; "
                "define that"
            )
        engine, room = found[0]
        _register(Entry("rule", name, made, engine, cite, _loading()))
        room.RULES[name] = made
        return made

    return register


def register_network(
    name: str, *, engine: EngineName = "clocked", cite: str = ""
) -> Callable[[_Made], _Made]:
    """Register how a network is built: `--set network.kind=NAME` trains it.

    The function or class is called as `build(input_shape, outputs, **options)`. Its further
    arguments are options, which `--set network.OPTION=VALUE` gives.

    Args:
        name: letters, digits, dots and hyphens.
        engine: "clocked" for a network on a time grid: a module whose `forward(x_t)` is one time
            step, see the page on networks of other libraries. "events" for one of exact spike
            times: a module of `events.Layer`.
        cite: BibTeX of what it is built on.

    Returns:
        A decorator that returns the function or class as it is.

    Raises:
        ConfigurationError: if the name is taken, or cannot be one; or the function does not take
            these arguments.

    Example:
        >>> import threefactor
        >>> @threefactor.register_network("narrow")
        ... def narrow(input_shape, outputs, *, width: int = 20):
        ...     return clocked.fc(input_shape[-1], (width,), outputs)
        >>> unregister("network", "narrow")
    """
    if engine not in ("clocked", "events"):
        raise ConfigurationError(f"engine is {clipped(engine)}; give 'clocked' or 'events'")

    def register(made: _Made) -> _Made:
        _check_call("network", name, made, ("input_shape", "outputs"))
        _register(Entry("network", name, made, engine, cite, _loading()))
        return made

    return register


def register_data(name: str, *, cite: str = "") -> Callable[[_Made], _Made]:
    """Register a function that loads data: `--set data.name=NAME` trains on it.

    It returns either `((inputs, targets), (inputs, targets))`, for training and for testing, or an
    object with two such pairs as `train` and `test`, such as `data.ImageData`.

    - `inputs` are a tensor (N, ...), a `SpikeBatch`, or any object that has a length and that a
      slice or a tensor of positions indexes (`data.Inputs`).
    - `targets` are a tensor (N, ...); class labels are torch.int64, (N,).
    - An object may also say `input_shape` (of one sample at one time step), `outputs` (their
      number), `classes` (a name for each), `steps` (T, if each sample is a sequence of frames and
      a batch is (T, B, ...)), `validation` (a pair of samples that choose the best epoch), and may
      have the methods `subset` and `fold` of `LabelledData`.

    The function gets `data_dir`, `steps`, `dtype`, `window`, `sort` and `room` of the experiment if
    it has arguments of these names. Its others are options, which `--set data.OPTION=VALUE` gives.

    Args:
        name: letters, digits, dots and hyphens.
        cite: BibTeX of the data.

    Returns:
        A decorator that returns the function as it is.

    Raises:
        ConfigurationError: if the name is taken, or cannot be one; or it cannot be called by names.

    Example:
        >>> import threefactor, torch
        >>> @threefactor.register_data("coins")
        ... def coins(*, sides: int = 2):
        ...     x = torch.eye(sides).repeat(8, 1)
        ...     return (x, x.argmax(1)), (x, x.argmax(1))
        >>> unregister("data", "coins")
    """

    def register(made: _Made) -> _Made:
        _check_call("data", name, made, ())
        _register(Entry("data", name, made, None, cite, _loading()))
        return made

    return register


def register_loss(name: str, *, cite: str = "") -> Callable[[_Made], _Made]:
    """Register a loss: `--set loss.kind=NAME` trains with it.

    A function `loss(output, targets, **options)` returns one differentiable value for each sample,
    (B,); autograd gives its error. A class makes objects that return losses, (B,), and errors,
    (B, m), themselves, as `clocked.CrossEntropyMSE` does. Arguments by name are options, which
    `--set loss.OPTION=VALUE` gives.

    Args:
        name: letters, digits, dots and hyphens.
        cite: BibTeX of it.

    Returns:
        A decorator that returns the function or class as it is.

    Raises:
        ConfigurationError: if the name is taken, or cannot be one; or the function does not take
            these arguments.

    Example:
        >>> import threefactor, torch
        >>> @threefactor.register_loss("focal")
        ... def focal(output, targets, *, gamma: float = 2.0):
        ...     log = torch.log_softmax(output, 1).gather(1, targets[:, None])[:, 0]
        ...     return -((1 - log.exp()) ** gamma) * log
        >>> unregister("loss", "focal")
    """

    def register(made: _Made) -> _Made:
        _check_call("loss", name, made, () if isinstance(made, type) else ("output", "targets"))
        _register(Entry("loss", name, made, None, cite, _loading()))
        return made

    return register


def register_recipe(
    name: str,
    settings: Any,
    *,
    title: str = "",
    per_rule: Mapping[str, Mapping[str, Any]] | None = None,
    cite: str = "",
) -> None:
    """Register a recipe: `threefactor train NAME` trains it.

    Args:
        name: letters, digits, dots and hyphens.
        settings: a `training.Settings`, or a mapping of what a recipe file holds; see
            `recipes.read_recipe`. They are checked when the recipe is first used, or at once if a
            plugin registers it.
        title: what it trains, in a line.
        per_rule: what is different for some rules, see `recipes.Recipe`.
        cite: BibTeX of it.

    Raises:
        ConfigurationError: if the name is taken, or cannot be one.

    Example:
        >>> import threefactor
        >>> threefactor.register_recipe(
        ...     "slow-digits", {"base": "digits-fc", "optimizer": {"lr": 1e-5}}, title="Slow digits"
        ... )
        >>> unregister("recipe", "slow-digits")
    """
    values = (settings, title, dict(per_rule or {}))
    _register(Entry("recipe", name, values, None, cite, _loading()))


def register_recipe_file(
    name: str, settings: Any, title: str, per_rule: Mapping[str, Mapping[str, Any]], file: Path
) -> None:
    """Register the recipe of a file; the file may be read again, and may have changed.

    Raises:
        ConfigurationError: if the name is taken, or cannot be one.
    """
    there = _ENTRIES.get(("recipe", name))
    if there is not None and there.plugin == str(file):
        del _ENTRIES["recipe", name]
    _register(Entry("recipe", name, (settings, title, dict(per_rule)), plugin=str(file)))


def entries(kind: Kind | None = None) -> dict[str, Entry]:
    """Return what is registered, by name; of one kind, or of all by "KIND NAME"."""
    if kind is not None:
        return {name: one for (its, name), one in _ENTRIES.items() if its == kind}
    return {f"{its} {name}": one for (its, name), one in _ENTRIES.items()}


def entry(kind: str, name: Any) -> Entry | None:
    """Return what is registered under a name, or provided by the library; None if nothing is."""
    if not isinstance(name, str):
        return None
    return _ENTRIES.get((kind, name)) or _PROVIDED.get((kind, name))


def unregister(kind: Kind, name: str) -> None:
    """Take out what was registered under a name.

    Raises:
        ConfigurationError: if nothing was.
    """
    if (kind, name) not in _ENTRIES:
        raise unknown_name(f"registered {kind}", name, entries(kind))
    del _ENTRIES[kind, name]
    for room in (clocked, events):
        if kind == "rule":
            room.RULES.pop(name, None)


def provide(kind: Kind, made: Mapping[str, Callable[..., Any]]) -> None:
    """Provide functions of the library's own that work as those that users register do.

    Args:
        kind: of all of them.
        made: by name, which nobody else can take.
    """
    reserve(kind, made)
    for name, function in made.items():
        _PROVIDED[kind, name] = Entry(kind, name, function, provided=True)


def reserve(kind: Kind, names: Iterable[str]) -> None:
    """Say which names the library has, so that nobody can register them.

    Raises:
        ConfigurationError: if one was registered before.
    """
    names = set(names)
    _RESERVED.setdefault(kind, set()).update(names)
    for name in names & entries(kind).keys():
        raise ConfigurationError(_taken(kind, name, _ENTRIES[kind, name].source))


def adopt(path: str, module: str) -> None:
    """Note a plugin with what it put into `RULES` itself, or registered before it was loaded."""
    for kind_name, one in list(_ENTRIES.items()):
        inner = getattr(one.made, "__module__", "") or ""
        if one.plugin is None and (inner == module or inner.startswith(f"{module}.")):
            _ENTRIES[kind_name] = replace(one, plugin=path)
    engines: tuple[tuple[EngineName, Any], ...] = (("clocked", clocked), ("events", events))
    for engine, room in engines:
        for name, made in room.RULES.items():
            ours = name in _RESERVED["rule"] or ("rule", name) in _ENTRIES
            if not ours and made.__module__.split(".")[0] == module.split(".")[0]:
                _ENTRIES["rule", name] = Entry("rule", name, made, engine, plugin=path)


@contextmanager
def loaded_by(path: str) -> Iterator[None]:
    """Note a plugin's path with all that is registered in this context; undo it on an error."""
    before, rules = dict(_ENTRIES), [(room.RULES, dict(room.RULES)) for room in (clocked, events)]
    _LOADING.append(path)
    try:
        yield
    except BaseException:
        _ENTRIES.clear()
        _ENTRIES.update(before)
        for table, old in rules:
            table.clear()
            table.update(old)
        raise
    finally:
        _LOADING.pop()


def _loading() -> str | None:
    return _LOADING[-1] if _LOADING else None


def _register(one: Entry) -> None:
    kind, name = one.kind, one.name
    fits = isinstance(name, str) and len(name) <= MOST_LETTERS
    place = fits and kind == "rule" and _CLASS_NAME.fullmatch(name)
    if not fits or not (place or _NAME.fullmatch(name)) or name.split("-")[0] == "own":
        raise ConfigurationError(
            f"{kind} is to be called {clipped(name)}; give a name of at most {MOST_LETTERS} "
            "letters, digits, dots and hyphens, which does not begin with own"
        )
    if not isinstance(one.cite, str):
        raise ConfigurationError(f"cite of {kind} {name!r} is {clipped(one.cite)}; give BibTeX")
    if name in _RESERVED.get(kind, ()):
        raise ConfigurationError(_taken(kind, name, "threefactor"))
    there = _ENTRIES.get((kind, name))
    # A cell of a notebook that is run again defines the same class anew.
    again = there is not None and (there.plugin, there.source) == (None, one.source)
    if there is not None and not (again and one.plugin is None):
        raise ConfigurationError(_taken(kind, name, there.plugin or there.source))
    tables = [t for t in (clocked.RULES, events.RULES) if kind == "rule" and name in t]
    if tables and there is None:
        raise ConfigurationError(_taken(kind, name, "an entry of RULES"))
    _ENTRIES[kind, name] = one


def _taken(kind: str, name: str, by: str) -> str:
    return f"the {kind} name {name!r} is taken by {by}; register yours under another name"


def _check_call(kind: Kind, name: Any, made: Any, given: tuple[str, ...]) -> None:
    """Refuse what cannot be called with the arguments that a kind gets, and options by name."""
    wanted = f"{', '.join((*given, ''))}**options".strip()
    if not callable(made):
        raise ConfigurationError(
            f"{kind} {clipped(name)} is {clipped(made)}; register a function or class that takes "
            f"({wanted})"
        )
    signature = inspect.signature(made)
    options = {
        one.name: None
        for one in list(signature.parameters.values())[len(given) :]
        if one.default is one.empty and one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)
    }
    try:
        signature.bind(*given, **options)
    except TypeError as problem:
        raise ConfigurationError(
            f"{kind} {clipped(name)} is {made.__qualname__}{signature}, which does not take "
            f"({wanted}): {problem}"
        ) from problem
