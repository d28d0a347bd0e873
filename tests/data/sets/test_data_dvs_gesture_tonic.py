"""DVS128 Gesture in the files that Tonic leaves."""

import numpy as np
import pytest

from threefactor.data import load_events, load_frames
from threefactor.data.encode.framing import FrameSettings
from threefactor.data.sets.dvs_gesture_tonic import read_tonic_gesture
from threefactor.errors import DataError

TABLE = np.array([[3, 5, 1, 10.0], [4, 127, 0, 10.25], [127, 0, 1, 12.5]])
MESSAGES = {
    "columns": (TABLE[:, :3], r"shape \(3, 3\); expected numbers"),
    "half a pixel": (TABLE + np.array([0.5, 0, 0, 0]), "no whole number"),
    "polarity": (TABLE + np.array([0, 0, 1, 0]), "polarity besides 0 and 1"),
    "outside": (TABLE + np.array([10, 0, 0, 0]), "outside the sensor"),
    "backwards": (TABLE[::-1], "before the previous"),
    "nan": (TABLE * np.array([1, 1, 1, np.nan]), "no whole number"),
}


def filled(folder):
    """Two people for training, one for testing, as Tonic unpacks them."""
    for part, people in (("Train", ("user01_led", "user02_lab")), ("Test", ("user24_led",))):
        for person in people:
            place = folder / "DVSGesture" / f"ibmGesture{part}" / person
            place.mkdir(parents=True)
            for label in (0, 2, 10):
                np.save(place / f"{label}.npy", TABLE + np.array([0, 0, 0, label]))
    return folder


def test_samples_are_read_in_place(tmp_path):
    data = load_events("dvs-gesture-tonic", filled(tmp_path))
    recordings, labels = data.train
    assert labels.tolist() == [0, 2, 10, 0, 2, 10]
    assert data.test[1].tolist() == [0, 2, 10]
    one = recordings[1]
    assert one["t"].tolist() == [0, 250, 2500]  # microseconds, of milliseconds
    assert one["x"].tolist() == [3, 4, 127]
    assert one["y"].tolist() == [5, 127, 0]
    assert one["p"].tolist() == [True, False, True]
    framed = load_frames("dvs-gesture-tonic", tmp_path, FrameSettings(number=3))
    assert framed.input_shape == (2, 128, 128)
    batch = framed.train[0][[0]]
    assert batch[:, 0].sum(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    assert batch[1, 0, 0, 127, 4] == 1  # OFF, row, column


@pytest.mark.parametrize("case", MESSAGES)
def test_other_tables_are_refused(tmp_path, case):
    table, message = MESSAGES[case]
    np.save(tmp_path / "1.npy", table)
    with pytest.raises(DataError, match=message):
        read_tonic_gesture(tmp_path / "1.npy")


def test_a_number_of_no_class_and_an_empty_folder_are_named(tmp_path):
    place = filled(tmp_path) / "DVSGesture" / "ibmGestureTest" / "user24_led"
    (place / "10.npy").rename(place / "11.npy")
    with pytest.raises(DataError, match=r"11.npy has the number of no class; expected 0 to 10"):
        load_events("dvs-gesture-tonic", tmp_path)
    for file in place.iterdir():
        file.unlink()
    with pytest.raises(DataError, match="has no samples"):
        load_events("dvs-gesture-tonic", tmp_path)


def test_absent_files_are_told_to_get_with_tonic(tmp_path):
    with pytest.raises(DataError, match=r"tonic\.datasets\.DVSGesture"):
        load_events("dvs-gesture-tonic", tmp_path)
