"""What a row of data is: samples, boxes, and the parquet files they are kept in.

A row number counts from 0. Nothing here decodes an image unless `ImageRef.open` is called.
"""

from data_specs.boxes import SPACES, Box, Space, convert, iou, is_inside
from data_specs.parquet import (
    file_uses,
    parquet_files,
    read_rows,
    read_samples,
    sample_from_row,
)
from data_specs.parquet_write import sample_to_row, write_samples
from data_specs.sample import (
    IMAGE_MARKER,
    DataSpecError,
    ImageRef,
    Message,
    Problem,
    RewardSpec,
    Sample,
    shorten,
)

__all__ = [
    "IMAGE_MARKER",
    "SPACES",
    "Box",
    "DataSpecError",
    "ImageRef",
    "Message",
    "Problem",
    "RewardSpec",
    "Sample",
    "Space",
    "convert",
    "file_uses",
    "iou",
    "is_inside",
    "parquet_files",
    "read_rows",
    "read_samples",
    "sample_from_row",
    "sample_to_row",
    "shorten",
    "write_samples",
]
