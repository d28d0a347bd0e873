"""A report on runs: which sections it has, and in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from threefactor.recipes import RECIPES
from threefactor.report.analyses import Analysis, analysis_sections, find_analyses
from threefactor.report.citing import cite_settings
from threefactor.report.comparison import (
    cost_table,
    judged_tables,
    overview_table,
    run_table,
)
from threefactor.report.courses import tracked_sections
from threefactor.report.learning import firing_figure, firing_rates, firing_table, learning_curves
from threefactor.report.page import Listing, Section
from threefactor.report.runs import ReportedRun
from threefactor.report.spikes import spikes_of_groups
from threefactor.report.study import Group, Study, collect
from threefactor.report.sweeps import MOST_GROUPS, is_sweep, ranked, sweep_sections, told_of
from threefactor.training.description import OWN
from threefactor.training.settings import OwnNetworkSettings

__all__ = ["ReportSections", "report_sections", "study_sections"]

MOST_RUNS = 40
"""Runs of sweeps that the page has a table of; more are a list that is folded away."""


@dataclass(frozen=True)
class ReportSections:
    """The parts of a report on runs. Iterating gives its sections in the order of the page.

    Attributes:
        left_out: folders and files that could not be used, each with the reason.
        overview: the accuracies of all recipes in one table, if there are several.
        recipes: for each recipe its results, and what was measured while its networks trained.
        spikes: networks at work, if they were asked for.
        analyses: one for each kind of analysis.
        runs: every run with the command that made it.
        citing: BibTeX of what the runs used.
    """

    left_out: Section | None
    overview: Section | None
    recipes: tuple[Section, ...]
    analyses: tuple[Section, ...]
    runs: Section
    citing: Section
    spikes: tuple[Section, ...] = ()

    def __iter__(self) -> Iterator[Section]:
        first = (one for one in (self.left_out, self.overview) if one is not None)
        shown = (*self.recipes, *self.spikes, *self.analyses)
        return iter((*first, *shown, self.runs, self.citing))


def report_sections(
    paths: Sequence[str | Path],
    *,
    unfinished: bool = False,
    split: bool = False,
    spikes: bool = False,
    data_dir: str | Path | None = None,
) -> ReportSections:
    """Read runs and their analyses and return the sections of their report.

    Args:
        paths: run folders, or folders that contain some at any depth. That of a sweep is split.
        unfinished, split: see `collect`.
        spikes: whether to open the first run of each group and show its network at work.
        data_dir: where its data are, see `threefactor.data.load`.

    Raises:
        CheckpointError, ConfigurationError: see `collect`.
    """
    sweeps = [Path(path) for path in paths if is_sweep(Path(path))]
    study = collect(paths, unfinished=unfinished, split=split or bool(sweeps))
    analyses, unread = find_analyses(paths)
    study = replace(study, left_out=(*study.left_out, *unread))
    told = [line for path in sweeps for line in told_of(path)]
    sections = study_sections(study, analyses, sweep=told if sweeps else None)
    if not spikes:
        return sections
    best = [group for groups in study.recipes.values() for group in ranked(groups)]
    return replace(sections, spikes=tuple(spikes_of_groups(best, data_dir)))


def study_sections(
    study: Study,
    analyses: Sequence[Analysis] = (),
    *,
    measure: str | None = None,
    sweep: Sequence[str] | None = None,
) -> ReportSections:
    """Return the sections of a report on a study.

    Args:
        study: what to report.
        analyses: of its runs, from `find_analyses` or `read_analyses`.
        measure: which of the measures that were taken during training to show; None for all.
        sweep: sentences on how a sweep was made, whose cells are ranked; None if it is none. A
            recipe with more than `MOST_GROUPS` groups is shown as a sweep in any case.
    """
    overview = None
    if len(study.recipes) > 1 and sweep is None:
        text = ("Measured accuracies beside published ones, where there are any.",)
        overview = Section("Overview", text, (overview_table(study.groups),))
    recipes: list[Section] = []
    ranked = False
    for recipe, groups in study.recipes.items():
        if sweep is not None or len(groups) > MOST_GROUPS:
            ranked = True
            said = (*(sweep or ()), *_description(recipe, groups))
            recipes += sweep_sections(recipe, groups, said)
            continue
        recipes += [_experiment(recipe, groups), *tracked_sections(recipe, groups, measure)]
    own = {
        (kind, str(part["name"])): part.get("cite") or ""
        for run in study.runs
        for kind, part in run.own_parts.items()
    }
    cited = Listing("BibTeX", cite_settings((run.settings for run in study.runs), own))
    text = ("What these runs are built on: rules, engines, networks, data, and threefactor.",)
    return ReportSections(
        left_out=_left_out(study) if study.left_out else None,
        overview=overview,
        recipes=tuple(recipes),
        analyses=tuple(analysis_sections(analyses)),
        runs=_runs(study, fold=ranked and len(study.runs) > MOST_RUNS),
        citing=Section("How to cite", text, listings=(cited,)),
    )


def _left_out(study: Study) -> Section:
    said = tuple(f"{one.path}: {one.reason}." for one in study.left_out)
    count = len(said)
    title = f"{count} {'folder or file is' if count == 1 else 'folders or files are'} left out"
    return Section(title, said, warning=True)


def _experiment(recipe: str, groups: Sequence[Group]) -> Section:
    said = _description(recipe, groups)
    tables = [*judged_tables(recipe, groups), cost_table(recipe, groups)]
    figures = [*learning_curves(recipe, groups)]
    if all(firing_rates(group) for group in groups):  # else there is no hidden layer
        tables.insert(-1, firing_table(recipe, groups))
        figures.append(firing_figure(recipe, groups))
    settings = tuple(_settings(group) for group in groups)
    return Section(recipe, said, tuple(tables), tuple(figures), settings)


def _description(recipe: str, groups: Sequence[Group]) -> tuple[str, ...]:
    """Say what was trained: the recipe's description only if all of it is true of all groups."""
    own = [part for group in groups for run in group.runs for part in _own_parts(run)]
    other = sorted(
        {_part_of(key, group.other) for group in groups for key in group.other} - {"rule"}
    )
    named = next(
        (r.own_parts["recipe"] for g in groups for r in g.runs if "recipe" in r.own_parts), None
    )
    if named is not None:
        title = f"A recipe of one's own: {named.get('title') or recipe}."
    elif recipe not in RECIPES:
        title = _without_recipe(groups[0])
    elif other:
        title = (
            f"Trained from the recipe {recipe} with another {', '.join(other)}, so that neither "
            "its description nor a published number belongs to it."
        )
    else:
        title = f"{RECIPES[recipe].title}."
    return (title, *dict.fromkeys(own))


def _part_of(setting: str, others: Sequence[str]) -> str:
    """Return the part that a setting belongs to if all of it is another one, or the setting."""
    part = setting.partition(".")[0]
    whole = {part, f"{part}.kind", f"{part}.name"} & set(others)
    return part if whole else setting


def _own_parts(run: ReportedRun) -> Iterator[str]:
    """Say in words which code of its user's own a run is made of."""
    for kind, part in sorted(run.own_parts.items()):
        made = f", {part['class']}" if part.get("class") else ""
        where = f" of {part['file']}" if part.get("file") else ""
        digest = f" (digest {part['digest']})" if part.get("digest") else ""
        yield f"The {kind} {part['name']} is not the library's{made}{where}{digest}."


def _without_recipe(group: Group) -> str:
    settings = group.runs[0].settings
    if not settings.recipe.startswith(f"{OWN}-"):
        return "No recipe of this version."
    network, samples = settings.network, settings.data.name
    told = [f"a network of kind {network.kind}"]
    if isinstance(network, OwnNetworkSettings):
        shape = "x".join(map(str, network.input_shape))
        sizes = "-".join(map(str, (shape, *network.hidden, network.outputs)))
        told = [f"a network {network.name} of {sizes} neurons, {network.parameters:,} parameters"]
    told.append("data of one's own" if samples == OWN else f"data {samples}")
    return f"An experiment of one's own: {', '.join(told)}. No published number belongs to it."


def _settings(group: Group) -> Listing:
    seeds = ", ".join(str(run.settings.seed) for run in group.runs)
    shown = {key: value for key, value in group.settings.items() if key != "seed"}
    lines = (f"{key} = {json.dumps(value)}" for key, value in shown.items())
    return Listing(f"Settings: {group.label} (seeds {seeds})", "\n".join(lines))


def _runs(study: Study, *, fold: bool) -> Section:
    if fold:
        shown = (_run_line(run) for run in study.runs)
        listing = Listing(f"All {len(study.runs)} runs and their commands", "\n".join(shown))
        return Section("Runs", study.remarks, listings=(listing,))
    commands = [
        str(run.environment.get("command") or f"{run.path}: none, it was made from Python")
        for run in study.runs
    ]
    listing = Listing("Commands", "\n".join(commands))
    return Section("Runs", study.remarks, (run_table(study.runs),), listings=(listing,))


def _run_line(run: ReportedRun) -> str:
    value = run.history[-1][f"test_{run.score.name}"]
    score = f"{run.score.title} {run.score.text(value)}"
    if run.last is not None:
        score = f"{100 * run.last:.2f} %"
    command = run.environment.get("command") or "made from Python"
    return f"{run.path}: seed {run.settings.seed}, {score}, {command}"
