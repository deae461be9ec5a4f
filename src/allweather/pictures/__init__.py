"""Pictures, below everything else: any kind as a tensor, predictions at a picture's size, drawn, written, found."""

from allweather.pictures.convert import as_images, read_image

__all__ = ["as_images", "read_image"]
