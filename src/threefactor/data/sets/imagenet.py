"""ImageNet (ILSVRC 2012): photographs, in one folder a class."""

from __future__ import annotations

from threefactor.data.dataset import Files, ImageFolderSet

__all__ = ["IMAGENET"]

IMAGENET = ImageFolderSet(
    name="imagenet",
    title="ImageNet (ILSVRC 2012): photographs of a thousand kinds of things",
    shape=(3, 224, 224),
    train=1_281_167,
    test=50_000,
    class_folders=1000,
    licence=(
        "non-commercial research and education only, under ImageNet's terms of access; the "
        "photographs belong to others"
    ),
    source=(
        "O. Russakovsky, J. Deng, H. Su et al. 2015, ImageNet Large Scale Visual Recognition "
        "Challenge, International Journal of Computer Vision 115(3), 211-252"
    ),
    references=("deng2009imagenet",),
    homepage="https://image-net.org/download.php",
    files=Files(
        own_folders=("train", "val"),
        by_hand=(
            "register at https://image-net.org/download.php, agree to the terms, and unpack "
            "ILSVRC2012_img_train.tar (138 GB) and ILSVRC2012_img_val.tar (6 GB) into train/WNID "
            "and val/WNID, such as train/n01440764/n01440764_18.JPEG"
        ),
    ),
    needs="Pillow (pip install 'threefactor[images]')",
)
