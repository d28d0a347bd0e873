"""Folders of small pictures, in the layout of ImageNet."""

import numpy as np
from PIL import Image

CLASSES = ("n01440764", "n01443537", "n01484850")


def picture(seed, width=40, height=30):
    """Coarse coloured noise, that survives JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def write_folder(root, train=6, val=3, classes=CLASSES):
    """Write ROOT/train/WNID/WNID_1.JPEG and so on; return ROOT."""
    for part, count in (("train", train), ("val", val)):
        for label, name in enumerate(classes):
            place = root / part / name
            place.mkdir(parents=True)
            for number in range(count):
                seed = 1000 * label + number + (500 if part == "val" else 0)
                width = 40 + 3 * number
                picture(seed, width).save(place / f"{name}_{number + 1}.JPEG", quality=95)
    return root
