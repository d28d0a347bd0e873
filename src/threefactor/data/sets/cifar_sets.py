"""CIFAR-10 and CIFAR-100: what they are, whose they are, where they come from."""

from __future__ import annotations

from threefactor.data.dataset import DataFile, DataSet

__all__ = ["CIFAR_10", "CIFAR_10_NAMES", "CIFAR_100"]

TEN = "airplane automobile bird cat deer dog frog horse ship truck"
HUNDRED = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile
cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum
rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train
trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR_10_NAMES, CIFAR_100_NAMES = tuple(TEN.split()), tuple(HUNDRED.split())
LICENCE = "no licence is published; the authors ask for their report to be cited"
SOURCE = "A. Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images, tech report"
HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")

CIFAR_10 = DataSet(
    name="cifar10",
    title="CIFAR-10: small colour photographs",
    reader="cifar-10",
    shape=(3, 32, 32),
    train=50_000,
    test=10_000,
    classes=CIFAR_10_NAMES,
    licence=LICENCE,
    source=SOURCE,
    homepage=HOMEPAGE,
    files=(
        DataFile(
            "cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
            members=(
                *(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
                "cifar-10-batches-bin/test_batch.bin",
            ),
            limit=512 << 20,
        ),
    ),
    mirrors=MIRRORS,
    endings=("", ".gz"),
)

CIFAR_100 = DataSet(
    name="cifar100",
    title="CIFAR-100: small colour photographs of a hundred classes",
    reader="cifar-100",
    shape=(3, 32, 32),
    train=50_000,
    test=10_000,
    classes=CIFAR_100_NAMES,
    licence=LICENCE,
    source=SOURCE,
    homepage=HOMEPAGE,
    files=(
        DataFile(
            "cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
            members=("cifar-100-binary/train.bin", "cifar-100-binary/test.bin"),
            limit=512 << 20,
        ),
    ),
    mirrors=MIRRORS,
    endings=("", ".gz"),
)
