"""The page of a study: which sections, in which order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from threefactor.recipes import RECIPES
from threefactor.report.analyses import analysis_sections, find_analyses
from threefactor.report.citing import cite_settings
from threefactor.report.comparison import (
    accuracy_table,
    cost_table,
    overview_table,
    run_table,
)
from threefactor.report.firing import firing_rates, firing_table
from threefactor.report.grouping import Group, Study
from threefactor.report.page import Listing, Section
from threefactor.report.plots import firing_figure, learning_curves
from threefactor.report.study import collect
from threefactor.report.tracked import tracked_sections
from threefactor.training.description import OWN
from threefactor.training.settings import OwnNetworkSettings

__all__ = ["report_sections", "study_sections"]


def report_sections(
    paths: Sequence[str | Path], *, unfinished: bool = False, split: bool = False
) -> list[Section]:
    """Read runs and their analyses and return the sections of their report.

    Args:
        paths: run folders, or folders that hold some at any depth.
        unfinished, split: see `collect`.

    Raises:
        CheckpointError, ConfigurationError: see `collect`.
    """
    study = collect(paths, unfinished=unfinished, split=split)
    analyses, unread = find_analyses(paths)
    study = replace(study, left_out=(*study.left_out, *unread))
    *results, runs, citing = study_sections(study)
    return [*results, *analysis_sections(analyses), runs, citing]


def study_sections(study: Study, measure: str | None = None) -> list[Section]:
    """Return the sections of a study; the last two are "Runs" and "How to cite".

    Args:
        study: what they are about.
        measure: the one that is shown of those that were taken while training; None for all.
    """
    sections = [_left_out(study)] if study.left_out else []
    if len(study.recipes) > 1:
        text = ("Measured beside published, where there is such a number. Details follow.",)
        sections.append(Section("Overview", text, (overview_table(study.groups),)))
    for recipe, groups in study.recipes.items():
        sections += [_experiment(recipe, groups), *tracked_sections(recipe, groups, measure)]
    cited = cite_settings(run.settings for run in study.runs)
    text = ("What the runs above are built on: rules, engines, networks, data, and threefactor.",)
    citing = Section("How to cite", text, listings=(Listing("BibTeX", cited),))
    return [*sections, _runs(study), citing]


def _left_out(study: Study) -> Section:
    said = tuple(f"{one.path}: {one.reason}." for one in study.left_out)
    count = len(said)
    title = f"{count} {'folder or file is' if count == 1 else 'folders or files are'} left out"
    return Section(title, said, warning=True)


def _experiment(recipe: str, groups: Sequence[Group]) -> Section:
    title = RECIPES[recipe].title + "." if recipe in RECIPES else _without_recipe(groups[0])
    tables = [accuracy_table(recipe, groups), cost_table(recipe, groups)]
    figures = [*learning_curves(recipe, groups)]
    if all(firing_rates(group) for group in groups):  # else there is no hidden layer
        tables.insert(1, firing_table(recipe, groups))
        figures.append(firing_figure(recipe, groups))
    settings = tuple(_settings(group) for group in groups)
    return Section(recipe, (title,), tuple(tables), tuple(figures), settings)


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


def _runs(study: Study) -> Section:
    commands = [
        str(run.environment.get("command") or f"{run.path}: none, it was made from Python")
        for run in study.runs
    ]
    listing = Listing("Commands", "\n".join(commands))
    return Section("Runs", study.remarks, (run_table(study.runs),), listings=(listing,))
