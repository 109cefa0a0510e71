"""Phrases with boxes (RefCOCO, RefCOCO+, RefCOCOg, D3, OmniLabel) to grounding rows.

Three forms are read:

- records with an image, one or several phrases, and a box or boxes;
- references without boxes (RefCOCO's own), beside the instances file they point into by `ann_id`;
- one object with images, annotations and phrases: `sentences` (D3), `descriptions` (OmniLabel),
  phrases as `categories`, or a `caption` in each image. Several boxes of a phrase are one row; a
  phrase that is stated to have none in an image is a row with an empty list.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from data_specs.boxes import Box, Space
from data_specs.convert_boxes import (
    BoxLayout,
    BoxRules,
    box_reward,
    check_rules,
    place_box,
    read_corners,
)
from data_specs.convert_files import Record, holds_object, id_text, load_json, read_records
from data_specs.convert_formats import Draft, ask, check_row, finish
from data_specs.convert_images import Images, check_size, image_values
from data_specs.convert_layouts import BOX_KEYS, IMAGE_KEYS, PHRASE_KEYS
from data_specs.convert_log import ConvertLog, Fault, Place
from data_specs.convert_options import ConvertOptions
from data_specs.problem import DataSpecError
from data_specs.sample import Sample

Fields = Mapping[str, object]

_TEXT_KEYS = ("raw_sent", "sent", "raw", "text", "sentence", "phrase", "name")
_PHRASE_IDS = ("sent_id", "description_ids", "description_id", "category_id")
_IMAGE_NAMES = ("file_name", "image", "path")


@dataclass(frozen=True, kw_only=True)
class GroundingRules:
    """How boxes are written in the input, and which rows are made."""

    layout: BoxLayout | None = None
    """How a record's four numbers are meant; None = its key must say so itself."""
    given: Space = "pixel"
    """Space of a record's numbers."""
    boxes: BoxRules = field(default_factory=BoxRules)


class _RawBox(NamedTuple):
    """A box as it stands in the input."""

    value: object
    layout: BoxLayout
    place: Place


@dataclass(frozen=True, kw_only=True)
class _Reference:
    """Phrases that mean the same boxes of an image."""

    record: Record
    """Where it stands; its folder is where images are looked for."""
    id: str
    image: object
    size: tuple[object, object]
    """Width and height that pixels refer to, as stated."""
    phrases: list[str]
    boxes: list[_RawBox]
    given: Space = "pixel"
    image_id: str = ""
    split: str = ""


class _Target(NamedTuple):
    """An annotation of an instances file, for references that name its id."""

    image: Fields
    box: _RawBox
    folder: Path


def grounding_samples(
    paths: Sequence[Path], options: ConvertOptions, rules: GroundingRules, log: ConvertLog
) -> Iterator[Sample]:
    """The rows of the files; everything that gives none is in the log.

    Raises: DataSpecError if a file is of none of the three forms.
    """
    lists: list[Path] = []
    datasets: list[tuple[Path, Fields]] = []
    for path in paths:
        value = load_json(path, ConvertLog()) if holds_object(path) else None
        if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
            datasets.append((path, cast("dict[str, object]", value)))
        else:
            lists.append(path)
    images = Images(options)
    if lists:
        targets = {key: item for path, data in datasets for key, item in _targets(path, data)}
        for record in read_records(lists, "refcoco", options, log):
            try:
                reference = _from_record(record, rules, targets)
            except Fault as fault:
                log.add(fault, record.place)
                continue
            yield from _samples(reference, images, options, rules, log)
        return
    for path, dataset in datasets:
        described = list(_described(path, dataset, log))
        if options.seed is not None:
            random.Random(options.seed).shuffle(described)
        for done, reference in enumerate(described):
            options.progress(done, len(described))
            yield from _samples(reference, images, options, rules, log)


def _samples(
    reference: _Reference,
    images: Images,
    options: ConvertOptions,
    rules: GroundingRules,
    log: ConvertLog,
) -> Iterator[Sample]:
    """One row a phrase."""
    place = reference.record.place
    try:
        image = images.load(reference.image, reference.record)
        frame = check_size(image, *reference.size)
        boxes: list[Box] = []
        for raw in reference.boxes:
            place = raw.place
            box, is_cut = place_box(
                read_corners(raw.value, raw.layout),
                "",
                image,
                rules=rules.boxes,
                frame=frame,
                given=reference.given,
            )
            if is_cut:
                log.changed("boxes cut to their image")
            if box not in boxes:
                boxes.append(box)
        place = reference.record.place
        check_rules(boxes, image, rules.boxes)
        if not reference.phrases:
            raise Fault("no phrase", "phrase", None, f"a text under {'|'.join(PHRASE_KEYS)}")
    except Fault as fault:
        log.add(fault, place)
        return
    for number, phrase in enumerate(reference.phrases):
        named = [Box(*box.corners, phrase, box.space) for box in boxes]
        draft = Draft(
            place=place,
            id=f"{reference.id}-{number}",
            messages=ask(options.wording.box_phrase(phrase), 1),
            images=[image],
            reward=box_reward(named),
            extra={
                "coordinate_space": rules.boxes.space,
                "question_type": "box_phrase",
                **({"image_id": reference.image_id} if reference.image_id else {}),
            },
            split=reference.split,
        )
        try:
            sample = finish(draft, options, "grounding")
            check_row(sample, options)
        except Fault as fault:
            log.add(fault, place)
            continue
        yield sample


def _from_record(
    record: Record, rules: GroundingRules, targets: Mapping[str, _Target]
) -> _Reference:
    """A record that holds its box, or points to it."""
    fields = record.fields
    phrases = _phrases(record.first(PHRASE_KEYS))
    split = record.text(("split",))
    image_id = id_text(fields.get("image_id"))
    boxes = _own_boxes(record, rules)
    if boxes is not None:
        image = record.first(IMAGE_KEYS)
        if image is None:
            raise Fault("no image", "image", None, f"a path under {'|'.join(IMAGE_KEYS)}")
        size = (fields.get("width"), fields.get("height"))
        return _Reference(
            record=record,
            id=record.id(),
            image=image_values(image)[0],
            size=size,
            phrases=phrases,
            boxes=boxes,
            given=rules.given,
            image_id=image_id,
            split=split,
        )
    target = targets.get(id_text(fields.get("ann_id")))
    if target is None:
        keys = "|".join(("bbox_xywh", "bbox_xyxy", *BOX_KEYS))
        allowed = f"a box under {keys}, or the id of an annotation of a file given beside this one"
        raise Fault("no box", "bbox, ann_id", fields.get("ann_id"), allowed)
    return _Reference(
        record=Record(fields=target.image, place=record.place, folder=target.folder),
        id=record.id(),
        image=_first(target.image, _IMAGE_NAMES),
        size=(target.image.get("width"), target.image.get("height")),
        phrases=phrases,
        boxes=[target.box],
        image_id=image_id or id_text(target.image.get("id")),
        split=split,
    )


def _own_boxes(record: Record, rules: GroundingRules) -> list[_RawBox] | None:
    """The boxes that a record holds itself; None if it has no such key."""
    layouts: dict[str, BoxLayout | None] = {"bbox_xywh": "xywh", "bbox_xyxy": "xyxy"}
    layouts |= dict.fromkeys(BOX_KEYS, rules.layout)
    for key, layout in layouts.items():
        value = record.fields.get(key)
        if not isinstance(value, list):
            continue
        value = cast("list[object]", value)
        if layout is None:
            raise DataSpecError(
                f"{record.place.file} record {record.place.number}: {key} is {value!r}, and "
                "nothing says whether it is x, y, width, height or two corners; say it with "
                "--box-layout xywh or --box-layout xyxy, or name the key bbox_xywh or bbox_xyxy"
            )
        return [_RawBox(item, layout, record.place) for item in _box_list(value)]
    return None


def _box_list(value: object) -> list[object]:
    """One box, or a list of boxes, as a list of boxes."""
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return items if all(isinstance(item, list) for item in items) else [items]


def _phrases(value: object) -> list[str]:
    """The texts in a field: one, a list of them, or of objects that hold one."""
    texts: list[str] = []
    for item in image_values(value):
        if isinstance(item, dict):
            item = _first(cast("dict[str, object]", item), _TEXT_KEYS)
        if isinstance(item, str) and item.strip(" ."):
            texts.append(" ".join(item.strip(" .").split()))
    return list(dict.fromkeys(texts))


def _targets(path: Path, dataset: Fields) -> Iterator[tuple[str, _Target]]:
    """The annotations of an instances file by their id."""
    images = {id_text(item.get("id")): item for _, item in _entries(dataset, "images")}
    for number, item in _entries(dataset, "annotations"):
        key = id_text(item.get("id"))
        image = images.get(id_text(item.get("image_id")))
        if key and image is not None:
            place = Place(file=path.name, number=number, id=key, section="annotations")
            yield key, _Target(image, _RawBox(item.get("bbox"), "xywh", place), path.parent)


def _described(path: Path, dataset: Fields, log: ConvertLog) -> Iterator[_Reference]:
    """Every phrase that a file asks of an image, with its boxes; none if it says there are none.

    Raises: DataSpecError if the file has no phrases.
    """
    names = ("sentences", "descriptions", "categories")
    images = list(_entries(dataset, "images"))
    if images and all(item.get("caption") for _, item in images):
        sort = "images"  # as MDETR has it: an image is listed once for each of its phrases
    else:
        sort = next((name for name in names if dataset.get(name)), "")
    phrases = {id_text(item.get("id")): item for _, item in _entries(dataset, sort)}
    if not phrases:
        raise DataSpecError(
            f"{path}: keys are {sorted(dataset)!r}; format refcoco needs phrases beside images and "
            f"annotations: one of {', '.join(names)}, or a caption in every image"
        )
    boxes = _boxes_of_phrases(path, dataset, phrases, log, by_image=sort == "images")
    stated = _stated_phrases(phrases)
    for number, image in images:
        key = id_text(image.get("id"))
        found = boxes.pop(key, {})
        marks = [f"image {key}", *(f"group {group}" for group in _ids(image.get("group_id")))]
        absent = [phrase for mark in marks for phrase in stated.get(mark, ())]
        place = Place(file=path.name, number=number, id=key, section="images")
        for phrase in dict.fromkeys([*found, *absent]):
            if found.get(phrase, True) is None:
                continue  # a crowd, which is in the log
            yield _Reference(
                record=Record(fields=image, place=place, folder=path.parent),
                id=key if sort == "images" else f"{key}-{phrase}",
                image=_first(image, _IMAGE_NAMES),
                size=(image.get("width"), image.get("height")),
                phrases=_phrases(_first(phrases[phrase], ("caption", *_TEXT_KEYS))),
                boxes=found.get(phrase) or [],
                image_id=key,
            )


def _boxes_of_phrases(
    path: Path, dataset: Fields, phrases: Mapping[str, Fields], log: ConvertLog, *, by_image: bool
) -> dict[str, dict[str, list[_RawBox] | None]]:
    """Image id -> phrase id -> boxes, or None if a crowd is among them."""
    known = {id_text(item.get("id")) for _, item in _entries(dataset, "images")}
    boxes: dict[str, dict[str, list[_RawBox] | None]] = {}
    for number, item in _entries(dataset, "annotations"):
        id_ = id_text(item.get("id"))
        place = Place(file=path.name, number=number, id=id_, section="annotations")
        image = id_text(item.get("image_id"))
        meant = [image] if by_image else _ids(_first(item, _PHRASE_IDS))
        if image not in known:
            allowed = "the id of one of the file's images"
            fault = Fault("unknown image", "image_id", item.get("image_id"), allowed)
            log.add(fault, place)
        elif not meant or not phrases.keys() >= set(meant):
            allowed = "ids of the file's phrases"
            log.add(Fault("unknown phrase", "|".join(_PHRASE_IDS), meant, allowed), place)
        else:
            raw = _RawBox(_box_list(item.get("bbox"))[0], "xywh", place)
            is_crowd = item.get("iscrowd") in (1, "1")
            if is_crowd:
                fault = Fault("crowd", "iscrowd", 1, "single instances", by_rule=True)
                log.add(fault, place)
            for phrase in meant:
                held = boxes.setdefault(image, {}).setdefault(phrase, [])
                if is_crowd or held is None:
                    boxes[image][phrase] = None
                else:
                    held.append(raw)
    return boxes


def _stated_phrases(phrases: Mapping[str, Fields]) -> dict[str, list[str]]:
    """`image ID` and `group ID` -> phrases that were looked for in that image, or all of a group.

    OmniLabel lists a description's images; D3 puts images and sentences into groups.
    """
    stated: dict[str, list[str]] = {}
    for phrase, item in phrases.items():
        for image in _ids(item.get("image_ids")):
            stated.setdefault(f"image {image}", []).append(phrase)
        for group in _ids(item.get("group_id")):
            stated.setdefault(f"group {group}", []).append(phrase)
    return stated


def _entries(dataset: Fields, name: str) -> Iterator[tuple[int, Fields]]:
    """(number, entry) of a list, or of an object of id to entry."""
    value = dataset.get(name)
    items: Iterable[object] = ()
    if isinstance(value, list):
        items = cast("list[object]", value)
    elif isinstance(value, dict):
        items = cast("dict[str, object]", value).values()
    for number, item in enumerate(items):
        if isinstance(item, dict):
            yield number, cast("dict[str, object]", item)


def _ids(value: object) -> list[str]:
    return [key for key in map(id_text, image_values(value)) if key]


def _first(fields: Fields, names: Iterable[str]) -> object:
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)
