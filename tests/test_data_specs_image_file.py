"""What an image's first and last bytes tell, and what only decoding does."""

import io
import zlib

import pytest
from PIL import Image

from data_specs import BadImage, ImageRef, read_header
from data_specs.image_file import decode


def picture(kind="PNG", size=(40, 30), **options):
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation, kind="JPEG"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture(kind, exif=exif)


FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP"]


@pytest.mark.parametrize("kind", [*FORMATS, "TIFF", "PPM"])
def test_format_and_size_are_read_from_the_header(kind):
    header = read_header(picture(kind))
    assert header == (kind, 40, 30)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.6, 0.9])
def test_an_image_that_ends_too_early_is_seen_without_decoding(kind, kept):
    encoded = picture(kind)
    with pytest.raises(BadImage) as caught:
        read_header(encoded[: int(len(encoded) * kept)])
    assert caught.value.kind == "image_truncated"


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_after_the_end_do_no_harm(kind):
    padding = b"\0" * 9 if kind == "GIF" else b"\0 and then this"
    assert read_header(picture(kind) + padding).width_px == 40


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    whole = picture("JPEG")
    thumbnail = b"Exif\0\0" + picture("JPEG", (8, 6))
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    encoded = whole[:2] + segment + whole[2:]
    assert read_header(encoded)[:2] == ("JPEG", 40)
    with pytest.raises(BadImage, match="ends too early"):
        read_header(encoded[:-40])


def bomb(side_px):
    """A PNG whose header claims a square."""
    data = bytearray(picture())
    data[16:24] = side_px.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (b"", "image_empty"),
        (b"<!DOCTYPE html><html>404</html>", "image_unknown"),
        (b"\x89PNG\r\n\x1a\n", "image_truncated"),
        (picture()[:20] + picture()[21:], "image_truncated"),
        (bomb(9000), "image_too_large"),
        (bomb(20000), "image_too_large"),
    ],
)
def test_bytes_that_are_no_usable_image_are_told_apart(encoded, kind):
    for read in (read_header, decode):
        with pytest.raises(BadImage) as caught:
            read(encoded)
        assert caught.value.kind == kind


def test_eighty_million_pixels_are_the_most():
    assert read_header(bomb(8944)).width_px == 8944  # 79,995,136
    with pytest.raises(BadImage, match="8945 x 8945"):
        read_header(bomb(8945))  # 80,013,025


def test_damage_in_the_middle_is_found_by_decoding_only():
    encoded = bytearray(picture("PNG"))
    middle = len(encoded) // 2
    encoded[middle : middle + 40] = bytes(40)
    assert read_header(bytes(encoded)).format == "PNG"
    with pytest.raises(BadImage) as caught:
        decode(bytes(encoded))
    assert caught.value.kind == "image_truncated"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 30)), (3, (40, 30)), (6, (30, 40))])
def test_an_image_is_as_a_viewer_shows_it(kind, orientation, size):
    encoded = turned(orientation, kind)
    assert read_header(encoded)[1:] == size
    assert ImageRef(data=encoded).open().size == size


def test_an_image_that_lies_on_its_side_is_turned_the_right_way():
    stored = Image.new("RGB", (40, 30), "black")
    stored.paste("white", (0, 0, 40, 15))  # white above; turned by 90 degrees clockwise: right
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    stored.save(buffer, "PNG", exif=exif)
    shown = decode(buffer.getvalue())
    assert shown.getpixel((25, 20)) == (255, 255, 255)
    assert shown.getpixel((5, 20)) == (0, 0, 0)


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0MM\0*garbage" * 3])
def test_a_damaged_exif_block_leaves_the_image_as_it_is(block):
    whole = picture("JPEG")
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    encoded = whole[:2] + segment + whole[2:]
    assert read_header(encoded)[1:] == (40, 30)
    assert decode(encoded).size == (40, 30)
