"""The data sets of event recordings: what they are, whose they are, where they come from."""

from __future__ import annotations

from threefactor.data.dataset import DataFile, DataSet
from threefactor.data.sets.cifar_sets import CIFAR_10_NAMES

__all__ = ["EVENT_SETS"]

MENDELEY = "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
FIGSHARE = "https://ndownloader.figshare.com/files/"

NMNIST = DataSet(
    name="nmnist",
    title="N-MNIST: MNIST's digits, seen by an event camera that moves in three saccades",
    reader="nmnist",
    shape=(2, 34, 34),
    train=60_000,
    test=10_000,
    classes=tuple("0123456789"),
    licence="CC BY-SA 4.0",
    source=(
        "G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor 2015, Converting Static Image Datasets to "
        "Spiking Neuromorphic Datasets Using Saccades, Frontiers in Neuroscience 9:437"
    ),
    homepage="https://www.garrickorchard.com/datasets/n-mnist",
    kind="events",
    files=(
        DataFile(
            "Train.zip",
            "20959b8e626244a1b502305a9e6e2031",
            url=f"{MENDELEY}39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
        ),
        DataFile(
            "Test.zip",
            "69ca8762b2fe404d9b9bad1103e97832",
            url=f"{MENDELEY}05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
        ),
    ),
    trees=("Train", "Test"),
)

GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave"),
    *("right arm clockwise", "right arm counter clockwise"),
    *("left arm clockwise", "left arm counter clockwise"),
    *("arm roll", "air drums", "air guitar", "other gestures"),
)

DVS_GESTURE = DataSet(
    name="dvs-gesture",
    title="DVS128 Gesture: hand and arm gestures of 29 people under three lights",
    reader="dvs-gesture",
    shape=(2, 128, 128),
    train=1176,
    test=288,
    classes=GESTURES,
    licence="CC BY 4.0",
    source=(
        "A. Amir, B. Taba, D. Berg, T. Melano et al. 2017, A Low Power, Fully Event-Based Gesture "
        "Recognition System, CVPR 2017, 7388-7397"
    ),
    homepage="https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8",
    kind="events",
    files=(DataFile("DvsGesture.tar.gz", "8a5c71fb11e24e5ca5b11866ca6c00a1"),),
    trees=("DvsGesture",),
)

# Name of the file, its number on figshare, its sum.
CIFAR_10_FILES = (
    ("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    ("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    ("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    ("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    ("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    ("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
    ("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    ("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    ("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    ("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
)

DVS_CIFAR10 = DataSet(
    name="dvs-cifar10",
    title="DVS-CIFAR10 (CIFAR10-DVS): images of CIFAR-10, moved before an event camera",
    reader="dvs-cifar10",
    shape=(2, 128, 128),
    train=9000,
    test=1000,
    classes=CIFAR_10_NAMES,
    licence="CC BY 4.0",
    source=(
        "H. Li, H. Liu, X. Ji, G. Li, L. Shi 2017, CIFAR10-DVS: An Event-Stream Dataset for Object "
        "Classification, Frontiers in Neuroscience 11:309"
    ),
    homepage="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
    kind="events",
    files=tuple(
        DataFile(f"{name}.zip", md5, url=f"{FIGSHARE}{number}")
        for name, number, md5 in CIFAR_10_FILES
    ),
    trees=CIFAR_10_NAMES,
)

EVENT_SETS = (NMNIST, DVS_GESTURE, DVS_CIFAR10)
"""The sets that `load_events` gives as recordings and `load_frames` as sequences of frames."""
