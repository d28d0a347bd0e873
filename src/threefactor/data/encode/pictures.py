"""How pictures of any size become images of one size, for training and for testing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from threefactor.data.arguments import check_whole
from threefactor.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageSettings"]

ATTEMPTS = 10
LARGEST_SIDE = 8192  # pixels
LARGEST_ASPECT = 1000.0
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ImageSettings:
    """Random parts of pictures for training, their centres for testing.

    For training, a part of the picture of random area and aspect ratio, at a random place, is
    resized to `size` x `size` pixels and flipped at random. For testing, the picture is resized to
    `resize` pixels on its shorter side and its centre cut out. Resizing is bilinear and averages
    over all pixels that a new one covers. The defaults are those of ImageNet.

    Args:
        size: pixels on each side of an image.
        resize: pixels on the shorter side before the centre is cut out, `size` or more.
        area: the least and the largest part of the picture's area.
        aspect: the least and the largest ratio of the part's width to its height; its logarithm is
            uniform.
        flip: exchange left and right of half the images for training.
        mean, std: of each channel, red, green and blue, from 0 to 1.

    Raises:
        InputError: a value has no meaning.

    Source: C. Szegedy et al. 2015, Going Deeper with Convolutions, CVPR 2015, for random parts.
    """

    size: int = 224
    resize: int = 256
    area: tuple[float, float] = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1, LARGEST_SIDE)
        check_whole("resize", self.resize, self.size, LARGEST_SIDE)
        for name, high in (("area", 1.0), ("aspect", LARGEST_ASPECT)):
            found = _numbers(getattr(self, name), 2)
            if found is None or not 0 < found[0] <= found[1] <= high:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; give two numbers above 0 in order, up "
                    f"to {high}"
                )
        mean, std = _numbers(self.mean, 3), _numbers(self.std, 3)
        if mean is None or std is None or not all(each > 0 for each in std):
            raise InputError(
                f"mean is {self.mean!r} and std {self.std!r}; give three numbers each, std above 0"
            )

    def for_training(self, picture: Image, chance: np.random.Generator) -> Image:
        """Return a random part of a picture, resized and perhaps flipped."""
        from PIL.Image import Resampling, Transpose

        part = picture.crop(self._part(*picture.size, chance))
        image = part.resize((self.size, self.size), Resampling.BILINEAR)
        if self.flip and chance.random() < 0.5:
            return image.transpose(Transpose.FLIP_LEFT_RIGHT)
        return image

    def for_testing(self, picture: Image) -> Image:
        """Return the centre of a resized picture."""
        from PIL.Image import Resampling

        size = self.resized(*picture.size)
        if size != picture.size:
            picture = picture.resize(size, Resampling.BILINEAR)
        left, top = (round((length - self.size) / 2) for length in size)
        return picture.crop((left, top, left + self.size, top + self.size))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of a picture before its centre is cut out for testing."""
        short = min(width, height)
        return self.resize * width // short, self.resize * height // short

    def _part(self, width: int, height: int, chance: np.random.Generator) -> Box:
        for _ in range(ATTEMPTS):
            area = width * height * chance.uniform(*self.area)
            aspect = math.exp(chance.uniform(*np.log(self.aspect)))
            wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < wide <= width and 0 < high <= height:
                left = int(chance.integers(width - wide + 1))
                top = int(chance.integers(height - high + 1))
                return left, top, left + wide, top + high
        return self._whole(width, height)

    def _whole(self, width: int, height: int) -> Box:
        """The largest part with an aspect ratio within the limits, in the centre."""
        low, top = self.aspect
        wide = min(width, max(1, round(height * top)))
        high = min(height, max(1, round(width / low)))
        left, above = (width - wide) // 2, (height - high) // 2
        return left, above, left + wide, above + high


def _numbers(given: object, count: int) -> list[float] | None:
    """Return so many finite numbers, or None if that is not what was given."""
    if not isinstance(given, (tuple, list)) or len(given) != count:
        return None
    real = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in given)
    return list(given) if real and all(abs(each) < math.inf for each in given) else None
