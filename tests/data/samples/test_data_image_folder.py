"""Image files: what batches hold, that chance is the seed's alone, and what is refused."""

import io
import math
import multiprocessing
import os
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from data.image_folders import CLASSES, picture, write_folder
from PIL import Image
from torch.nn.functional import interpolate

from threefactor.data import (
    ImageFiles,
    ImageFolderData,
    ImageSettings,
    available,
    batches,
    fetch,
    load,
    load_image_folder,
)
from threefactor.errors import ConfigurationError, DataError, InputError

SMALL = ImageSettings(size=16, resize=20)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "imagenet")


def pixels(path):
    with Image.open(path) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).double()


def reference(path, settings):
    """Resized by PyTorch, which averages over what a pixel covers, and cut out."""
    whole = pixels(path)[None]
    height, width = whole.shape[2:]
    scale = settings.resize / min(height, width)
    size = int(height * scale + 1e-9), int(width * scale + 1e-9)
    whole = interpolate(whole, size, mode="bilinear", antialias=True)[0]
    top, left = (round((length - settings.size) / 2) for length in size)
    return whole[:, top : top + settings.size, left : left + settings.size]


def test_test_images_are_centres_of_resized_pictures(folder):
    data = load_image_folder(folder, SMALL, normalise=False, threads=2)
    inputs, labels = data.test
    batch = inputs[:]
    assert batch.shape == (9, 3, 16, 16) and batch.dtype == torch.float32
    for image, path, label in zip(batch, inputs.paths, labels, strict=True):
        expected = reference(path, SMALL)
        assert expected.std() > 10
        assert (image.double() * 255 - expected).abs().max() <= 1.01, "Pillow rounds twice"
        assert Path(path).parent.name == CLASSES[label]


def test_channels_are_normalised_each_by_itself(folder):
    settings = ImageSettings(16, 20, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    plain = load_image_folder(folder, settings, normalise=False).test_images[[3, 0]]
    scaled = load_image_folder(folder, settings).test_images[torch.tensor([3, 0])]
    mean, std = torch.tensor([[0.1, 0.2, 0.3], [0.5, 0.6, 0.7]])[..., None, None]
    assert torch.allclose(scaled, (plain - mean) / std, atol=1e-6)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        batch = load_image_folder(folder, settings, dtype=dtype).test_images[[3, 0]]
        assert batch.dtype == dtype
        assert torch.allclose(batch.float(), scaled, atol=0.05)


def ramp(width, height):
    """A picture that tells where each pixel was: red from left to right, green downwards."""
    across = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([across, down, 0 * down], axis=2).round().astype(np.uint8))


def read_off(image):
    """The part's left, top, width and height, from 0 to 1, and whether it was flipped."""
    values = np.asarray(image).astype(float) / 255
    size = len(values)
    # Averages over the middle halves are free of what happens at the edges.
    quarter, half = size // 4, size // 2
    across, down = values[..., 0].mean(0), values[..., 1].mean(1)
    found = []
    for line in (across, down):
        first, second = line[quarter:half].mean(), line[half : half + quarter].mean()
        length = (second - first) * size / quarter
        found.append(((first + second) / 2 - abs(length) / 2, length))
    (left, width), (top, height) = found
    return left, top, abs(width), height, width < 0


def test_parts_for_training_are_as_large_and_wide_as_said():
    whole, chance = ramp(400, 300), np.random.default_rng(0)
    settings = ImageSettings(size=32, resize=32)
    parts = np.array([read_off(settings.for_training(whole, chance)) for _ in range(1500)])
    left, top, width, height, flipped = parts.T
    slack = 0.02
    assert left.min() > -slack and top.min() > -slack
    assert (left + width).max() < 1 + slack and (top + height).max() < 1 + slack
    assert flipped.mean() == pytest.approx(0.5, abs=0.04)
    area, aspect = width * height, width * 400 / (height * 300)
    assert 0.07 < area.min() < 0.1 and area.max() > 0.9
    assert 0.72 < aspect.min() < 0.78 and 1.28 < aspect.max() < 1.36
    # Small parts always fit, so that theirs are the distributions that were drawn from.
    small = area < 0.5
    assert area[small].mean() == pytest.approx(0.29, abs=0.015)
    assert np.log(aspect[small]).mean() == pytest.approx(0, abs=0.02)
    assert np.log(aspect[small]).std() == pytest.approx(math.log(16 / 9) / math.sqrt(12), abs=0.01)
    # Of the room that is left, each share as likely.
    for place, length in ((left, width), (top, height)):
        share = (place / (1 - length))[small]
        assert share.mean() == pytest.approx(0.5, abs=0.03)
        assert share.std() == pytest.approx(1 / math.sqrt(12), abs=0.03)


@pytest.mark.parametrize("size", [(300, 20), (20, 300)])
def test_of_a_strip_the_largest_allowed_centre_is_taken(size):
    settings = ImageSettings(size=32, resize=32, area=(1.0, 1.0), flip=False)
    left, top, width, height, _ = read_off(
        settings.for_training(ramp(*size), np.random.default_rng(0))
    )
    assert left + width / 2 == pytest.approx(0.5, abs=0.02)
    assert top + height / 2 == pytest.approx(0.5, abs=0.02)
    long, short = sorted([width * size[0], height * size[1]], reverse=True)
    assert long / short == pytest.approx(4 / 3, abs=0.15) and short == pytest.approx(20, abs=2)


def test_the_seed_and_the_sample_decide_whatever_batches_and_threads(folder):
    inputs = load_image_folder(folder, SMALL, threads=1).train_images
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    (whole,) = inputs.batches([order], seed=5)
    for threads, size in ((1, 4), (3, 4), (2, 7)):
        files = load_image_folder(folder, SMALL, threads=threads).train_images
        parts = list(files.batches(torch.split(order, size), seed=5))
        assert [len(part) for part in parts[:-1]] == [size] * (18 // size)
        assert torch.equal(torch.cat(parts), whole)
    (other,) = inputs.batches([order], seed=6)
    assert all(not torch.equal(a, b) for a, b in zip(other, whole, strict=True))
    (ordered,) = inputs.batches([slice(None)], seed=5)
    assert torch.equal(ordered[order], whole)
    assert list(inputs.batches([], seed=0)) == []


def test_batches_taken_alone_draw_from_the_global_generator(folder):
    inputs = load_image_folder(folder, SMALL).train_images
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = inputs[:5], inputs[:5]
    torch.set_rng_state(state)
    assert torch.equal(inputs[[0, 1, 2, 3, 4]], first)
    assert not torch.equal(first, second)
    state = torch.get_rng_state()
    list(inputs.batches([slice(0, 5)], seed=0))
    assert torch.equal(torch.get_rng_state(), state), "what is loaded ahead draws nothing"


def test_one_batch_is_loaded_ahead_and_no_more(folder, monkeypatch):
    read, real, ahead = [], ImageFiles.read, threading.Event()

    def recorded(self, sample, seed, out):
        real(self, sample, seed, out)
        read.append(sample)
        if len(read) == 8:
            ahead.set()

    monkeypatch.setattr(ImageFiles, "read", recorded)
    files = load_image_folder(folder, SMALL, threads=2).test_images
    loaded = files.batches([slice(0, 4), slice(4, 8), slice(8, 9)], seed=0)
    first = next(loaded)
    assert ahead.wait(10), "the second batch is read while the first is used"
    assert sorted(read) == list(range(8))
    assert torch.equal(first, files[:4])
    assert torch.equal(next(loaded), files[4:8])
    assert torch.equal(next(loaded), files[8:])


def test_what_is_not_asked_for_any_more_is_not_read(folder, monkeypatch):
    read, real, go = [], ImageFiles.read, threading.Event()

    def slow(self, sample, seed, out):
        if sample >= 2:
            assert go.wait(10)
        read.append(sample)
        real(self, sample, seed, out)

    monkeypatch.setattr(ImageFiles, "read", slow)
    files = load_image_folder(folder, SMALL, threads=1).test_images
    loaded = files.batches([slice(0, 2), slice(2, 9)], seed=0)
    next(loaded)
    loaded.close()
    go.set()
    files[:1]  # waits for its turn on the same thread
    assert set(read) <= {0, 1, 2}


def test_plain_inputs_are_indexed_when_they_are_asked_for():
    class Inputs:
        def __init__(self):
            self.asked = []

        def __getitem__(self, index):
            self.asked.append(index)
            return index

    inputs = Inputs()
    loaded = batches(inputs, [3, 1, 2], seed=0)
    assert next(loaded) == 3 and inputs.asked == [3]
    assert list(loaded) == [1, 2]


def test_samples_come_one_of_each_class_in_turn(folder):
    (folder / "train" / CLASSES[1] / f"{CLASSES[1]}_7.JPEG").write_bytes(b"")
    data = load_image_folder(folder, SMALL)
    assert isinstance(data, ImageFolderData)
    assert data.train_labels.tolist() == [0, 1, 2] * 6 + [1]
    assert [Path(path).stem for path in data.train_images.paths[:4]] == [
        *(f"{name}_1" for name in CLASSES),
        f"{CLASSES[0]}_2",
    ]
    assert (data.classes, data.outputs, data.input_shape) == (CLASSES, 3, (3, 16, 16))
    assert (data.name, data.mean[0], data.std[2]) == ("imagenet", 0.485, 0.225)
    part = data.subset(7, 4)
    assert part.train_labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert torch.equal(part.test_images[:], data.test_images[:4])
    assert len(part.train_images) == 7 and part.classes == CLASSES
    with pytest.raises(InputError, match="from 1 to 9"):
        data.subset(test=10)
    assert data.test_images.to("cpu")[:1].device == torch.device("cpu")


def test_other_files_are_passed_over_and_folders_in_folders_are_not(folder):
    place = folder / "train" / CLASSES[0]
    for name in (".DS_Store", "._n1.JPEG", "boxes.txt", "n01440764.tar"):
        (place / name).write_text("nothing")
    (folder / "train/.cache").mkdir()
    (folder / "train/n01440764.tar").write_text("nothing")
    (place / "images").mkdir()
    picture(1).save(place / "images/one.png")
    found = load_image_folder(folder, SMALL).train_images.paths
    assert len(found) == 19
    assert sum(path.endswith("images/one.png") for path in found) == 1


def test_other_names_of_the_parts(folder):
    (folder / "val").rename(folder / "test")
    assert load_image_folder(folder, SMALL, test="test").outputs == 3
    with pytest.raises(DataError, match=r"imagenet/val cannot be read \(No such file"):
        load_image_folder(folder, SMALL)


def as_mode(mode):
    grey = picture(3).convert("L")
    if mode == "P with transparency":
        image = picture(3).convert("P")
        image.info["transparency"] = bytes(range(256))
        return image
    return grey if mode == "L" else picture(3).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[(mode, "png") for mode in ("1", "L", "LA", "P", "P with transparency", "RGB", "RGBA")],
        *[(mode, "jpeg") for mode in ("L", "RGB", "CMYK")],
        *[("RGB", kind) for kind in ("bmp", "ppm", "tiff", "webp")],
    ],
)
@pytest.mark.filterwarnings("ignore:Palette images")
def test_every_mode_and_format_becomes_rgb(folder, mode, kind):
    path = folder / "val" / CLASSES[0] / f"{CLASSES[0]}_1.JPEG"
    as_mode(mode).save(path, kind)
    images = load_image_folder(folder, SMALL, normalise=False).test_images
    assert images.paths[0] == str(path)
    assert (images[:1][0].double() * 255 - reference(path, SMALL)).abs().max() <= 1.01
    if mode in ("1", "L", "LA"):
        assert torch.equal(images[:1][0, 0], images[:1][0, 1])


@pytest.mark.parametrize(
    ("array", "mode"),
    [
        (np.linspace(0, 65535, 64 * 64).astype(np.uint16), "I;16"),
        (np.linspace(0, 1, 64 * 64).astype(np.float32), "F"),
        (np.linspace(0, 70000, 64 * 64).astype(np.int32), "I"),
    ],
)
def test_modes_that_have_no_one_meaning_as_rgb_are_refused(folder, array, mode):
    path = folder / "val" / CLASSES[0] / f"{CLASSES[0]}_1.JPEG"
    Image.fromarray(array.reshape(64, 64)).save(path, "tiff")
    images = load_image_folder(folder, SMALL).test_images
    with pytest.raises(DataError, match=f"of mode {mode}.*; expected 8 bits") as caught:
        images[:1]
    assert str(path) in str(caught.value)


def body(kind, **options):
    stream = io.BytesIO()
    picture(5).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (b"<html>404</html>", "cannot identify"),
        (body("JPEG")[:-200], "truncated"),
        (body("JPEG")[:300], "image"),
        (body("PNG")[:-60], "image"),
        (body("GIF"), "cannot identify"),
        (body("EPS"), "cannot identify"),
        (b"P6 60000 60000 255\n", "exceeds limit"),
    ],
    ids=["empty", "page", "truncated", "header", "png", "gif", "eps", "bomb"],
)
def test_a_damaged_file_is_named_when_its_batch_is_taken(folder, content, message):
    path = folder / "val" / CLASSES[2] / f"{CLASSES[2]}_2.JPEG"
    path.write_bytes(content)
    images = load_image_folder(folder, SMALL, threads=2).test_images
    loaded = images.batches([slice(0, 3), slice(3, 6), slice(6, 9)], seed=0)
    assert len(next(loaded)) == 3
    with pytest.raises(DataError, match="is a damaged image file, or not an image") as caught:
        next(loaded)
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert str(caught.value).count(str(path)) == 1
    assert len(images[6:]) == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_is_an_error_or_a_picture(folder, kind):
    chance = np.random.default_rng(0)
    whole = body(kind)
    path = folder / "val" / CLASSES[0] / f"{CLASSES[0]}_1.JPEG"
    images = load_image_folder(folder, SMALL).test_images
    outcomes = Counter()
    for _ in range(150):
        broken = bytearray(whole)
        start = int(chance.integers(len(broken)) * chance.random())
        broken[start : start + 8] = chance.bytes(8)
        path.write_bytes(broken)
        try:
            outcomes[images[:1].shape] += 1
        except DataError:
            outcomes["error"] += 1
    assert set(outcomes) <= {"error", (1, 3, 16, 16)} and outcomes["error"] > 5


def test_a_file_that_has_gone_or_is_a_folder_is_named(folder):
    images = load_image_folder(folder, SMALL).test_images
    path = Path(images.paths[4])
    path.unlink()
    with pytest.raises(DataError, match=r"cannot be read \(No such file") as caught:
        images[:]
    assert str(path) in str(caught.value)
    path.mkdir()
    with pytest.raises(DataError, match="directory"):
        images[:]


def remove(*names):
    return lambda folder: [shutil.rmtree(folder / name) for name in names]


def flatten(folder):
    for path in sorted((folder / "val").glob("*/*")):
        path.rename(folder / "val" / path.name)
    remove(*(f"val/{name}" for name in CLASSES))(folder)
    (folder / "val/val.txt").write_text("n01440764_1.JPEG 0\n")


def pack(folder):
    remove(*(f"train/{name}" for name in CLASSES))(folder)
    (folder / "train/n01440764.tar").write_bytes(b"")


def empty(folder):
    for path in (folder / "train" / CLASSES[1]).iterdir():
        path.unlink()
    (folder / "train" / CLASSES[1] / "list.txt").write_text("")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (remove("train"), ["train cannot be read (No such file", "train/CLASS/NAME.JPEG"]),
        (empty, [f"train/{CLASSES[1]} holds no images (.jpg, ", "remove the folder"]),
        (
            remove(f"train/{CLASSES[0]}"),
            [f"val has {CLASSES[0]}, which ", "train lacks; expected folders of the same"],
        ),
        (remove(f"val/{CLASSES[0]}"), [f"train has {CLASSES[0]}, which "]),
        (flatten, ["val holds 9 images and 0 .tar", "no folders of classes", "valprep.sh"]),
        (pack, ["train holds 0 images and 1 .tar archives but no", "Unpack the archives"]),
    ],
    ids=["no train", "empty class", "more in val", "less in val", "flat", "packed"],
)
def test_other_layouts_are_answered_with_what_to_do(folder, change, messages):
    change(folder)
    with pytest.raises(DataError) as caught:
        load_image_folder(folder)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"threads": True}, "threads is True"),
        ({"threads": 10**6}, "threads is 1000000; give a whole number from 1 to 1024"),
        ({"train": None}, "None is not a path"),
        ({"settings": 5}, "settings are a int"),
        ({"dtype": torch.uint8}, "dtype is torch.uint8"),
    ],
)
def test_arguments_without_meaning_are_refused(folder, given, message):
    with pytest.raises(InputError, match=message):
        load_image_folder(folder, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"size": 0},
        {"size": 16.0},
        {"size": 300},
        {"area": (0.0, 1.0)},
        {"area": (0.5, 1.5)},
        {"aspect": (2.0, 1.0)},
        {"std": (1.0, 0.0, 1.0)},
        {"mean": (0.5,)},
    ],
)
def test_settings_without_meaning_are_refused(given):
    with pytest.raises(InputError, match="give "):
        ImageSettings(**given)


def test_imagenet_is_loaded_by_name(folder, tmp_path):
    assert available("imagenet", tmp_path)
    data = load("imagenet", tmp_path, dtype=torch.float64)
    assert (data.name, data.input_shape, data.classes) == ("imagenet", (3, 224, 224), CLASSES)
    batch = data.test_images[:2]
    assert batch.shape == (2, 3, 224, 224) and batch.dtype == torch.float64
    plain = load("imagenet", tmp_path, normalise=False)
    assert 0 <= plain.test_images[:2].min() < plain.test_images[:2].max() <= 1


def test_absent_imagenet_is_answered_with_where_it_is_to_be_had(tmp_path):
    with pytest.raises(DataError, match=r"imagenet: no train, val\n.*register at https") as caught:
        load("imagenet", tmp_path)
    assert "data fetch" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be downloaded by a program: register"):
        fetch("imagenet", tmp_path)


def test_without_pillow_the_extra_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert available("imagenet", tmp_path)
    with pytest.raises(ConfigurationError, match=r"pip install 'threefactor\[images\]'"):
        load("imagenet", tmp_path)


def read_in_child(images, queue):
    queue.put(images[:3].sum().item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is nothing to fork")
def test_a_forked_process_reads_on_threads_of_its_own(folder):
    images = load_image_folder(folder, SMALL, threads=2).test_images
    expected = images[:3].sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=read_in_child, args=(images, queue), daemon=True)
    child.start()
    assert queue.get(timeout=20) == expected
    child.join()
