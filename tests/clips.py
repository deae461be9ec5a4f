"""Small videos made for a test, by whatever codec and with whatever faults it asks for."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

SIZE = (64, 48)  # width, height


def scene(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames that compress well and differ from each other: a bright bar that moves over a slope of colors."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 200, width), np.linspace(0, 200, height))
    frames = []
    for index in range(count):
        frame = np.stack([x, y, 200 - x], -1).astype(np.uint8)
        left = 4 * index % width
        frame[:, left : left + 4] = 250
        frames.append(frame)
    return frames


def noise(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames that no codec can compress without loss, nor lose without notice."""
    return list(np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), np.uint8))


def clip(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    *,
    rate: Fraction | int = 10,
    times: Sequence[int] | None = None,
    matrix: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    space: tuple[int, int] | None = None,
    sound: float = 0,
    aspect: Fraction | None = None,
    transfer: int | None = None,
) -> Path:
    """Writes a video.

    Args:
        times: of the frames, in milliseconds; at `rate` where None.
        matrix: how it is to be turned when it is shown.
        space: color space and range, both as FFmpeg numbers them.
        sound: seconds of silence beside the pictures.
        aspect: a pixel's width by its height.
        transfer: the transfer function, as FFmpeg numbers it.
    """
    with av.open(path, "w", container_options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames[0].shape[:2] if frames else SIZE[::-1]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        if matrix is not None:
            stream.set_display_matrix(matrix)
        if space is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = space
        audio = file.add_stream("aac", rate=44100) if sound else None
        file.start_encoding()
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if space is not None:
                frame = frame.reformat(format=pixel_format, dst_colorspace=space[0], dst_color_range=space[1])
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if audio is not None:
            _silence(file, audio, sound)
    return path


def jpegs(path: Path, frames: Sequence[np.ndarray], turn: int | None = None) -> Path:
    """Writes JPEGs one behind the other, as cameras do; in a container where the name ends in one's.

    Args:
        turn: what their EXIF says of how the camera was held, beside who made it; None writes none.
    """
    stills, exif = io.BytesIO(), Image.Exif()
    exif[0x010F], exif[0x0112] = "Acme", turn
    for pixels in frames:
        Image.fromarray(pixels).save(stills, "JPEG", quality=95, **({} if turn is None else {"exif": exif}))
    if path.suffix == ".mjpeg":
        path.write_bytes(stills.getvalue())
        return path
    stills.seek(0)
    with av.open(stills, format="mjpeg") as given, av.open(path, "w") as file:
        stream = file.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    return path


def unknown_codec(path: Path) -> Path:
    """A video whose codec no decoder knows."""
    clip(path, scene(3))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC"))
    return path


def covered(path: Path, frames: Sequence[np.ndarray]) -> Path:
    """Writes an .mp4 whose first stream is a cover, a picture of another size, and its second a video."""
    with av.open(path, "w") as file:
        cover = file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        stream = file.add_stream("libx264", rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        file.start_encoding()
        for each, pictures in ((cover, [np.zeros((16, 16, 3), np.uint8)]), (stream, frames)):
            for pixels in pictures:
                file.mux(each.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(each.encode(None))
    return path


def sound_only(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(path, "w") as file:
        _silence(file, file.add_stream("aac", rate=44100), 0.2)
    return path


def _silence(file: av.container.OutputContainer, stream: av.AudioStream, seconds: float):
    for index in range(max(1, round(seconds * 44100 / 1024))):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate, frame.pts = 44100, 1024 * index
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def cut(path: Path, share: float) -> Path:
    """The file without its end: `share` of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    return path


def spoil(path: Path, start: float, count: int = 400) -> Path:
    """The file with `count` bytes overwritten, from a share of its length on."""
    content = bytearray(path.read_bytes())
    place = round(start * len(content))
    content[place : place + count] = np.random.default_rng(1).integers(0, 256, count, np.uint8).tobytes()
    path.write_bytes(content)
    return path
