"""Data: streams of frames for adaptation, and labels that only scoring can reach."""

from pathlib import Path

from allweather.data.datasets import open_split
from allweather.data.folder import open_files
from allweather.data.stream import Frame, Stream
from allweather.data.video import Video, VideoFrame
from allweather.data.video_stream import VideoStream


def load_stream(kind: str, path: Path | str, size: tuple[int, int] | None = None) -> Stream:
    """A stream of frames: `load_stream("folder", "night_drive/")` or `load_stream("acdc:val/fog", "acdc/")`.

    Args:
        kind: `folder`, the images below a folder in natural order; or a dataset and its split, `NAME` or `NAME:SPLIT`,
            where NAME may be one of your own: `mydata.py:MyDataset`; or `video`, the frames of a file.
        path: the folder, the dataset's root, or the video.
        size: (width, height) that every frame is resampled to; None keeps each one's own.

    Raises:
        AllWeatherError: for an unknown kind, a size that is none, a path without images, or code of your own that
            fails.
        ImageError: for a video that cannot be read.
        MissingLibraryError: for a video without PyAV, which reads them.
    """
    if kind == "folder":
        return open_files([path], size)
    if kind == "video":
        return VideoStream(path, size)
    return open_split(kind, path, size)


__all__ = ["Frame", "Stream", "Video", "VideoFrame", "VideoStream", "load_stream", "open_files"]
