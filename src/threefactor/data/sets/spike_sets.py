"""The data sets of spikes: what they are, whose they are, where they come from."""

from __future__ import annotations

from dataclasses import replace

from threefactor.data.dataset import DataFile, DataSet

__all__ = ["SPIKE_SETS"]

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")

SHD = DataSet(
    name="shd",
    title="Spiking Heidelberg Digits: spoken digits through a model of the inner ear",
    reader="shd",
    shape=(700,),
    train=8156,
    test=2264,
    classes=(*ENGLISH, *GERMAN),
    licence="CC BY 4.0",
    source=(
        "B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke 2022, The Heidelberg Spiking Data Sets for "
        "the Systematic Evaluation of Spiking Neural Networks, IEEE Transactions on Neural "
        "Networks and Learning Systems 33(7), 2744-2757, doi:10.1109/TNNLS.2020.3044364"
    ),
    homepage="https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    kind="spikes",
    files=(
        DataFile("shd_train.h5.gz", "d47c9825dee33347913e8ce0f2be08b0", limit=512 << 20),
        DataFile("shd_test.h5.gz", "3062a80ec0c5719404d5b02e166543b1", limit=512 << 20),
    ),
    mirrors=("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/"),
    # The unpacked file is the fastest to load. The sums of the .zip files are in docs/data.md.
    endings=("", ".gz", ".zip"),
    needs="h5py (pip install 'threefactor[data]')",
)

SHD_LIKE = replace(
    SHD,
    name="shd-like",
    title="Spike trains of your own in the layout and size of the Spiking Heidelberg Digits",
    train=0,
    test=0,
    licence="that of your files",
    source=f"your files, in the layout of {SHD.source}",
    files=(),
    mirrors=(),
    own_files=("train.h5.gz", "test.h5.gz"),
    by_hand=(
        "write train.h5 and test.h5 with spikes/times (seconds), spikes/units (0 to 699) and "
        "labels (0 to 19), as docs/data.md describes"
    ),
)

YIN_YANG = DataSet(
    name="yin-yang",
    title="Yin-Yang: which part of the symbol a point lies in",
    reader="yin-yang",
    shape=(5,),
    train=5000,
    test=1000,
    classes=("yin", "yang", "dot"),
    licence="nothing is copied: samples are drawn anew from the published definition",
    source="L. Kriener, J. Göltz, M. A. Petrovici 2022, The Yin-Yang dataset, NICE 2022, 107-111",
    homepage="https://github.com/lkriener/yin_yang_data_set",
    kind="spikes",
    origin="there are none, as samples are generated from the definition",
)

SPIKE_SETS = (SHD, SHD_LIKE, YIN_YANG)
"""The sets that `load_spikes` alone gives."""
