"""Total firing rates of convolutional networks, beside the published ones."""

import json

import pytest

from threefactor.report import collect, published_table, study_sections
from threefactor.report.comparison import judged_tables
from threefactor.report.learning import firing_figure, firing_table, learning_curves
from threefactor.report.sweeps import sweep_sections

# Neurons of conv5 by hand: 128 x 32^2, 256 x 16^2, 512 x 8^2, 512 x 4^2.
NEURONS = (131072, 65536, 32768, 8192)
RATES = {"lif1": 0.1, "lif2": 0.2, "lif3": 0.3, "lif4": 0.4}
TOTAL = (0.1 * 131072 + 0.2 * 65536 + 0.3 * 32768 + 0.4 * 8192) / 237568


@pytest.mark.parametrize("data", ["cifar-10", "dvs-cifar10"])
def test_published_totals_are_weighted_by_neurons(data):
    """48 x 48 pixels instead of 32 x 32 change all layers alike."""
    for line in published_table(f"opzo-table7-{data}").values:
        *layers, total = (value.mean for value in line)
        expected = sum(n * rate for n, rate in zip(NEURONS, layers, strict=True)) / sum(NEURONS)
        assert total == pytest.approx(expected, abs=1e-4)


def test_the_total_stands_beside_the_published_one(make_run, edit_config, tmp_path):
    folder = make_run("conv", [0.5, 0.6], base="cifar10-conv5")
    sizes = dict(zip(RATES, NEURONS, strict=True))
    edit_config(folder, lambda document: document.update(layer_sizes=sizes))
    lines = [{**line, "firing_rates": RATES} for line in folder.read().metrics]
    folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    groups = collect([tmp_path]).groups
    table = firing_table("cifar10-conv5", groups)
    assert table.columns == ("rule", "seeds", "lif1", "lif2", "lif3", "lif4", "total")
    measured, published = table.rows
    assert measured[-1].mean == pytest.approx(TOTAL)
    assert published[0] == "OPZO, published" and published[-1].mean == 0.2229
    assert list(firing_figure("cifar10-conv5", groups).series[0].xs) == [*RATES, "total"]
    (*_, rates) = learning_curves("cifar10-conv5", groups)
    assert rates.series[0].ys == pytest.approx([TOTAL, TOTAL])


def test_layers_of_unknown_size_have_no_total(make_run, tmp_path):
    make_run("conv", [0.5], base="cifar10-conv5")  # nobody wrote its sizes down
    table = firing_table("cifar10-conv5", collect([tmp_path]).groups)
    assert table.columns == ("rule", "seeds", "lif1", "lif2")


def test_curves_end_where_the_first_run_stopped_early(make_run, tmp_path):
    """Means of the seeds that are left would be means of other runs."""
    early = {"epochs": 6, "data.validation": 0.3, "stopping.patience": 1}
    for seed, held_out in enumerate([(0.5, 0.4), (0.5, 0.6, 0.7, 0.6)]):
        test = [0.8 + 0.1 * seed] * len(held_out)
        folder = make_run(f"early{seed}", test, seed=seed, **early)
        lines = [
            {**line, "validation_loss": 1.0, "validation_accuracy": accuracy}
            for line, accuracy in zip(folder.read().metrics, held_out, strict=True)
        ]
        folder.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    study = collect([tmp_path])
    (group,) = study.groups
    assert group.lengths == [2, 4] and group.epochs == "2 to 4"
    errors = learning_curves("digits-fc", study.groups)[0]
    (curve,) = errors.series
    assert (curve.xs, curve.ys) == ([1, 2], [pytest.approx(15.0)] * 2)
    assert "A curve ends where the first of its runs stopped." in errors.caption
    (table,) = judged_tables("digits-fc", study.groups)
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["epochs"] == "2 to 4" and row["last epoch, %"].mean == pytest.approx(85.0)
    assert [*study_sections(study)] and sweep_sections("digits-fc", study.groups)[1].figures
