"""Pictures, below everything else: any kind as a tensor, predictions at a picture's size, drawn, written, filmed."""

from allweather.pictures.convert import as_images, read_image
from allweather.pictures.film import Film
from allweather.pictures.panels import side_by_side

__all__ = ["Film", "as_images", "read_image", "side_by_side"]
