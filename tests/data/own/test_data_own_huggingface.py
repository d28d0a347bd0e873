"""Folders of Hugging Face's library datasets: pictures, labels, splits, and bad ones."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from threefactor.data.own.kinds import KINDS, recognise
from threefactor.data.own.survey import survey
from threefactor.errors import ConfigurationError, DataError

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
NAMES = ["cat", "dog"]
LABEL = datasets.ClassLabel(names=NAMES)


def pictures(seed, count=8):
    values = np.random.default_rng(seed).integers(0, 256, (count, 6, 8), dtype=np.uint8)
    return [Image.fromarray(one) for one in values]


def table(seed, label=LABEL, labels=(0, 1) * 4, images=None, feature=None):
    features = {"image": feature or datasets.Image(), "label": label}
    given = {"image": pictures(seed) if images is None else images, "label": list(labels)}
    return datasets.Dataset.from_dict(given, features=datasets.Features(features))


def saved(folder, **splits):
    found = splits["all"] if set(splits) == {"all"} else datasets.DatasetDict(splits)
    found.save_to_disk(str(folder))
    return folder


def load(folder, **options):
    return KINDS["huggingface"](path=str(folder), **{"steps": 4, **options})


def test_pictures_and_labels_are_those_that_were_saved(tmp_path):
    folder = saved(tmp_path / "d", train=table(0), test=table(1), validation=table(2))
    assert recognise(folder) == "huggingface"
    data = load(folder, normalise=False)
    assert data.classes == ("cat", "dog")
    assert data.input_shape == (1, 6, 8)
    for seed, (inputs, labels) in enumerate((data.train, data.test, data.validation)):
        wanted = np.stack([np.asarray(one) for one in pictures(seed)])
        assert torch.equal((inputs[:, 0] * 255).round().byte(), torch.from_numpy(wanted))
        assert labels.tolist() == [0, 1] * 4
    mean = load(folder).train[0].double()
    assert abs(float(mean.mean())) < 1e-6
    coded = load(folder, steps=None)
    assert coded.input_shape == (48,)


def test_one_table_is_split_by_a_share_of_each_class(tmp_path):
    folder = saved(tmp_path / "d", all=table(0))
    with pytest.raises(ConfigurationError, match="test_share"):
        load(folder)
    data = load(folder, test_share=0.25)
    assert sorted(data.test[1].tolist()) == [0, 1]
    assert len(data.train[1]) == 6
    whole = saved(tmp_path / "e", train=table(0), test=table(1))
    with pytest.raises(ConfigurationError, match="leave it out"):
        load(whole, test_share=0.25)


def test_other_names_of_splits_and_columns(tmp_path):
    one, other = (table(n).rename_columns({"image": "img", "label": "y"}) for n in (0, 1))
    folder = saved(tmp_path / "d", training=one, held=other)
    with pytest.raises(DataError, match=r"splits .*training.*train_part=NAME"):
        load(folder)
    names = {"train_part": "training", "test_part": "held"}
    with pytest.raises(DataError, match=r"columns img \(.*no 'label'; .*label_key=NAME"):
        load(folder, **names)
    with pytest.raises(DataError, match="image_key=NAME"):
        load(folder, **names, label_key="y")
    data = load(folder, **names, label_key="y", image_key="img")
    assert len(data.train[1]) == 8


def test_integers_may_be_labels_and_need_not_all_be_in_the_test(tmp_path):
    value = datasets.Value("int64")
    train = table(0, value, (0, 1, 2, 0, 1, 2, 0, 1))
    folder = saved(tmp_path / "d", train=train, test=table(1, value, (0,) * 8))
    assert load(folder).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("label", "labels", "message"),
    [
        (datasets.Value("string"), ("a", "b") * 4, "holds string, .*class_encode_column"),
        (datasets.Value("float32"), (0.0, 1.0) * 4, "holds float32, and classes are meant"),
        (LABEL, (0, 1, 0, 1, 0, 1, 0, -1), "no label in 1 rows, as -1 in row 7"),
        (LABEL, (0, 1, 0, 1, 0, 1, 0, None), "no label in 1 rows"),
        (LABEL, (0,) * 8, "for training of the class .*dog"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path, label, labels, message):
    folder = saved(tmp_path / "d", train=table(0, label, labels), test=table(1))
    with pytest.raises(DataError, match=message):
        load(folder)


def test_rows_without_a_picture_are_named(tmp_path):
    there = table(0, images=[*pictures(0)[:6], None, None])
    folder = saved(tmp_path / "d", train=there, test=table(1))
    with pytest.raises(DataError, match="no picture in 2 rows, as in row 6"):
        load(folder)


def test_a_damaged_picture_is_named_with_its_row(tmp_path):
    bodies = [{"bytes": b"no picture", "path": None} for _ in range(8)]
    folder = saved(tmp_path / "d", train=table(0, images=bodies), test=table(1))
    with pytest.raises(DataError, match=r"train\[0\]"):
        load(folder)
    assert any("train[7]" in one for one in survey(folder).problems)


def test_numbers_are_no_pictures_and_other_folders_no_tables(tmp_path):
    numbers = datasets.Value("int64")
    folder = saved(tmp_path / "d", all=table(0, images=[*range(8)], feature=numbers))
    with pytest.raises(DataError, match="holds int64 and no pictures"):
        load(folder, test_share=0.5)
    with pytest.raises(DataError, match=r"has no dataset_dict\.json"):
        load(tmp_path)
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read by the library datasets"):
        load(folder, test_share=0.5)


def test_it_is_surveyed_as_pictures_are(tmp_path):
    folder = saved(tmp_path / "d", all=table(0))
    found = survey(folder)
    assert found.kind == "huggingface"
    assert found.counts["train"] == {"cat": 4, "dog": 4}
    assert found.facts["sizes"].startswith("8 of 6x8")
    assert any("test_share" in one for one in found.problems)
    assert not survey(folder, options={"test_share": 0.25}).problems
    assert len(found.examples) == 8


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    folder = saved(tmp_path / "d", train=table(0), test=table(1))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigurationError, match=r"threefactor\[huggingface\]"):
        load(folder)
