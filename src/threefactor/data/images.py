"""Images with class labels, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from threefactor.data.subset import check_numbers

__all__ = ["ImageData"]


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set of images, split for training and testing.

    Args:
        train_images, test_images: (N, C, H, W), floating point.
        train_labels, test_labels: (N,), torch.int64, between 0 and `outputs` - 1.
        classes: one name per label.
        name: the key of the set in `DATASETS`.
        mean, std: of all pixels of the whole training set scaled to 0..1; the standard deviation
            is the population's (divided by the number of pixels, not by one less).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    name: str
    mean: float
    std: float

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """The training images and their labels."""
        return self.train_images, self.train_labels

    @property
    def test(self) -> tuple[Tensor, Tensor]:
        """The test images and their labels."""
        return self.test_images, self.test_labels

    def subset(self, train: int | None = None, test: int | None = None) -> ImageData:
        """Return the first `train` and `test` samples; None keeps all.

        The tensors are views of these, and `mean` and `std` stay those of the whole set.

        Raises:
            InputError: a number is not between 1 and the number of samples there are.
        """
        check_numbers(self, train, test)
        return replace(
            self,
            train_images=self.train_images[:train],
            train_labels=self.train_labels[:train],
            test_images=self.test_images[:test],
            test_labels=self.test_labels[:test],
        )
