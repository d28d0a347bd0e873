"""Confusions, counted by loops."""

import pytest
import torch

from threefactor import analysis
from threefactor.errors import InputError
from threefactor.report.pictures import class_figure


def test_counts_are_those_of_loops():
    torch.manual_seed(0)
    output, labels = torch.rand(200, 5), torch.randint(4, (200,))  # class 4 has no sample
    output[:, 3] -= 2.0  # which is never predicted
    found = analysis.confusion(output, labels, ["a", "b", "c", "d", "e"])
    for i in range(5):
        for j in range(5):
            count = 0
            for row, label in zip(output.tolist(), labels.tolist(), strict=True):
                count += label == i and row.index(max(row)) == j
            assert found.counts[i][j] == count
    right = sum(found.counts[i][i] for i in range(5))
    assert 0 < right < 200 and found.accuracy == right / 200
    assert found.recall[4] is None and found.precision[3] is None
    assert found.recall[0] == found.counts[0][0] / found.samples[0]
    taken = sum(found.counts[i][1] for i in range(5))
    assert found.precision[1] == found.counts[1][1] / taken
    assert sum(found.samples) == 200 and found.classes == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("output", "labels", "classes", "word"),
    [
        (torch.rand(3, 2), torch.rand(3), (), "no class labels"),
        (torch.rand(3, 2), torch.zeros(3, 2, dtype=torch.int64), (), "no class labels"),
        (torch.rand(3, 2), torch.tensor([True, False, True]), (), "no class labels"),
        (torch.rand(3, 2), torch.tensor([0, 1, 2]), (), "between 0 and 2, .* 2 outputs"),
        (torch.rand(3, 2), torch.tensor([0, -1, 1]), (), "between -1 and 1"),
        (torch.rand(3, 1), torch.tensor([0, 0, 0]), (), "one output"),
        (torch.rand(3, 2), torch.tensor([0]), (), "there are 1 labels"),
        (torch.rand(0, 2), torch.zeros(0, dtype=torch.int64), (), "there are 0 labels"),
        (torch.full((1, 2), float("nan")), torch.tensor([0]), (), "not finite"),
        (torch.rand(1, 2), torch.tensor([0]), ("a",), "1 names of classes"),
    ],
)
def test_what_is_no_class_is_refused(output, labels, classes, word):
    with pytest.raises(InputError, match=word):
        analysis.confusion(output, labels, classes)


def test_classes_of_the_same_name_stay_apart():
    """As the two kinds of crane in ImageNet: a bar each, of its own height."""
    output, labels = torch.eye(3), torch.tensor([0, 0, 2])
    found = analysis.confusion(output, labels, ["crane", "dog", "crane"])
    assert found.classes == ["crane (0)", "dog", "crane (2)"]
    (series,) = class_figure(found).series
    assert (series.xs, series.ys) == (["crane (0)", "crane (2)"], [50.0, 100.0])
