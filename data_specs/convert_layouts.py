"""Which keys a record of each format has, and what to say about a record of another format."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from data_specs.convert_log import Place
from data_specs.problem import DataSpecError

IMAGE_KEYS = (
    "image",
    "images",
    "image_path",
    "img",
    "img_path",
    "imgname",
    "file_name",
    "filename",
)
"""Keys under which records keep their image, or images."""

PHRASE_KEYS = (
    *("sentences", "sentence", "sents", "sent", "expressions", "expression"),
    *("phrase", "caption", "ref", "normal_caption", "problem"),
)
"""Keys of what is to be found."""

BOX_KEYS = ("bbox", "bboxes", "box", "boxes", "solution")
"""Keys of boxes whose layout an option tells; `bbox_xywh` and `bbox_xyxy` tell it themselves."""

QUESTION_KEYS = ("question", "query", "problem")
ANSWER_KEYS = (
    *("answers", "answer", "multiple_choice_answer", "label", "direct_answers"),
    *("correct_choice_idx", "solution", "gt_answer"),
)

LAYOUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "coco": (("images",), ("annotations",), ("categories",)),
    "refcoco": (
        (*IMAGE_KEYS, "image_id", "ann_id"),
        PHRASE_KEYS,
        (*BOX_KEYS, "bbox_xywh", "bbox_xyxy", "ann_id"),
    ),
    "vqa": ((*IMAGE_KEYS, "image_id", "imageId"), QUESTION_KEYS, ANSWER_KEYS),
    "chartqa": (("imgname", "image"), ("query",), ("label",)),
    "llava": (("conversations", "conversation", "messages", "response", "history"),),
    "easyr1": (("problem",), ("answer",)),
    "trl": (("prompt",), ("completion", "solution", "reward_model", "ground_truth", "answer")),
    "verl": (("prompt",), ("reward_model",), ("data_source",)),
}
"""Format -> what every record needs: one key of each group."""


def check_layout(format_name: str, keys: Collection[str], place: Place) -> None:
    """Raise DataSpecError if a record with these keys is not one of the format.

    Args:
        format_name: one of LAYOUTS.
        keys: of the first record, or of the file's own object.
        place: where the record stands.
    """
    missing = [group for group in LAYOUTS[format_name] if not any(key in keys for key in group)]
    if not missing:
        return
    near = nearest_layout(keys)
    hint = ""
    if near and near != format_name:
        hint = f" Nearest format: {near} ({_needs(near)}); try `vl data convert {near}`."
    where = place.file if place.number is None else f"{place.file} record {place.number}"
    raise DataSpecError(
        f"{where}: keys are {sorted(keys)[:30]!r}; format {format_name} needs "
        f"{_needs(format_name)}; missing: {_groups(missing)}.{hint} "
        "Keys with other names: --rename THEIRS=OURS"
    )


def nearest_layout(keys: Collection[str]) -> str:
    """The format of which most is there, in its most telling keys; empty if nothing of any is."""
    best, best_rank = "", (0.0, 0.0)
    for name, groups in LAYOUTS.items():
        met = [group for group in groups if any(key in keys for key in group)]
        rank = (len(met) / len(groups), sum(1 / len(group) for group in met))
        if rank > best_rank:
            best, best_rank = name, rank
    return best


def _needs(format_name: str) -> str:
    return _groups(LAYOUTS[format_name])


def _groups(groups: Collection[tuple[str, ...]]) -> str:
    return ", ".join("|".join(group) for group in groups)
