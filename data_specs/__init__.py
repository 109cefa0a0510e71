"""What a row of data is: samples, boxes, and the parquet files they are kept in.

A row number counts from 0. Nothing here decodes an image unless `ImageRef.open` is called.
"""

from data_specs.boxes import SPACES, Box, Space, convert, iou, is_inside
from data_specs.image_file import IMAGE_PIXELS_MAX, BadImage, ImageHeader, read_header
from data_specs.parquet import (
    count_rows,
    file_uses,
    parquet_files,
    read_rows,
    read_samples,
    sample_from_row,
)
from data_specs.parquet_write import sample_to_row, write_samples
from data_specs.problem import KINDS, DataSpecError, Problem, shorten
from data_specs.sample import IMAGE_MARKER, ImageRef, Message, RewardSpec, Sample
from data_specs.schema import HELD_OUT

__all__ = [
    "HELD_OUT",
    "IMAGE_MARKER",
    "IMAGE_PIXELS_MAX",
    "KINDS",
    "SPACES",
    "BadImage",
    "Box",
    "DataSpecError",
    "ImageHeader",
    "ImageRef",
    "Message",
    "Problem",
    "RewardSpec",
    "Sample",
    "Space",
    "convert",
    "count_rows",
    "file_uses",
    "iou",
    "is_inside",
    "parquet_files",
    "read_header",
    "read_rows",
    "read_samples",
    "sample_from_row",
    "sample_to_row",
    "shorten",
    "write_samples",
]
