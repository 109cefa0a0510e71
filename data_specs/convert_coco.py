"""COCO instances JSON, or any file of that form, to detection and counting rows.

An image's boxes of a category are asked for together. pycocotools reads masks here, not files: its
reader fails at the first annotation without an id, and says nothing of those it passes over.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from data_specs.boxes import Box
from data_specs.convert_boxes import (
    BoxRules,
    box_reward,
    check_rules,
    place_box,
    read_corners,
)
from data_specs.convert_files import Record, id_text, load_json
from data_specs.convert_formats import Draft, ask, check_row, finish
from data_specs.convert_images import Images, LoadedImage, check_size
from data_specs.convert_layouts import check_layout
from data_specs.convert_log import ConvertLog, Fault, Place
from data_specs.convert_options import ConvertOptions
from data_specs.problem import DataSpecError, shorten
from data_specs.sample import RewardSpec, Sample

Fields = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class CocoRules:
    """Which rows a COCO file gives."""

    task: Literal["detection", "counting"] = "detection"
    mode: Literal["single", "multi", "both"] = "single"
    """Detection: a row for every category of an image, one row for all of them, or both."""
    boxes: BoxRules = field(default_factory=BoxRules)
    incomplete: Literal["keep", "drop"] = "keep"
    """What becomes of a category some of whose boxes in an image cannot be used, for instance of a
    crowd. Counting always drops it: the number is not known."""
    num_negatives: int = 0
    """Rows an image about categories that are not in it: an empty list, or the number 0. Only true
    of data sets in which every image was searched for every category."""

    def __post_init__(self) -> None:
        if self.num_negatives < 0:
            raise ValueError(f"negatives are {self.num_negatives}; allowed: 0 or more")


@dataclass
class _Category:
    """What an image holds of one category."""

    name: str
    boxes: list[Box] = field(default_factory=list[Box])
    is_complete: bool = True


def coco_samples(
    paths: Sequence[Path], options: ConvertOptions, rules: CocoRules, log: ConvertLog
) -> Iterator[Sample]:
    """The rows of the files; everything that gives none is in the log.

    Raises: DataSpecError if a file is not of COCO's form.
    """
    for path in paths:
        yield from _CocoFile(path, options, rules, log).samples()


class _CocoFile:
    """One annotation file on its way to rows."""

    def __init__(
        self, path: Path, options: ConvertOptions, rules: CocoRules, log: ConvertLog
    ) -> None:
        self._path, self._options, self._rules, self._log = path, options, rules, log
        self._images = Images(options)
        dataset = load_json(path, log, _without_mask)
        if not isinstance(dataset, dict):
            raise DataSpecError(
                f"{path}: holds {shorten(dataset)}; format coco needs an object with images, "
                "annotations and categories. Lists of records: formats refcoco, vqa or llava"
            )
        self._dataset = cast("dict[str, object]", dataset)
        check_layout("coco", self._dataset.keys(), Place(file=path.name))
        self._names: dict[str, str] = {}
        """Name of every category, by id."""
        self._same: dict[str, str] = {}
        """Id -> the first id that has the same name, which stands for both."""
        self._read_categories()
        self._licences = {
            id_text(item.get("id")): str(item.get("name") or "")
            for _, item in self._entries("licenses", needed=False)
        }

    def samples(self) -> Iterator[Sample]:
        """The rows, image by image."""
        images = self._read_images()
        annotations = self._read_annotations(images.keys())
        order = list(images)
        if self._options.seed is not None:
            random.Random(self._options.seed).shuffle(order)
        for done, key in enumerate(order):
            self._options.progress(done, len(order))
            record = images[key]
            try:
                drafts = list(self._drafts(key, record, annotations.get(key, ())))
            except Fault as fault:
                self._log.add(fault, record.place)
                continue
            for draft in drafts:
                try:
                    sample = finish(draft, self._options, self._rules.task)
                    check_row(sample, self._options)
                except Fault as fault:
                    self._log.add(fault, record.place)
                    continue
                yield sample

    def _entries(self, name: str, *, needed: bool = True) -> Iterator[tuple[int, Fields]]:
        """(number, entry) of one of the file's lists."""
        value = self._dataset.get(name)
        if not isinstance(value, list):
            if needed:
                raise DataSpecError(
                    f"{self._path}: {name} is {shorten(value)}; allowed: a list of objects. "
                    "Export the file in COCO's form"
                )
            return
        for number, item in enumerate(cast("list[object]", value)):
            if isinstance(item, dict):
                fields = cast("dict[str, object]", item)
                rename = self._options.rename
                yield number, {rename.get(key, key): inner for key, inner in fields.items()}
            else:
                fault = Fault("not a record", "entry", item, "a JSON object")
                self._log.add(fault, self._place(name, number))

    def _place(self, section: str, number: int, id_: str = "") -> Place:
        return Place(file=self._path.name, number=number, id=id_, section=section)

    def _read_categories(self) -> None:
        first_of: dict[str, str] = {}
        for number, item in self._entries("categories"):
            key, name = id_text(item.get("id")), item.get("name")
            place = self._place("categories", number, key)
            if not key or not isinstance(name, str) or not name.strip():
                fault = Fault("category without id or name", "entry", dict(item), "both")
                self._log.add(fault, place)
            elif self._names.get(key, name.strip()) != name.strip():
                allowed = f"an id of its own; {self._names[key]!r} has it already"
                self._log.add(Fault("category id repeated", "id", name, allowed), place)
            else:
                self._names[key] = name.strip()
                self._same[key] = first_of.setdefault(name.strip().casefold(), key)

    def _read_images(self) -> dict[str, Record]:
        images: dict[str, Record] = {}
        for number, item in self._entries("images"):
            key = id_text(item.get("id"))
            place = self._place("images", number, key)
            if not key:
                self._log.add(Fault("image without id", "id", item.get("id"), "an id"), place)
            elif key in images:
                fault = Fault("image id repeated", "id", key, "an id of its own")
                self._log.add(fault, place)
            else:
                images[key] = Record(fields=item, place=place, folder=self._path.parent)
        return images

    def _read_annotations(self, images: object) -> dict[str, list[tuple[Place, Fields]]]:
        known = cast("Mapping[str, Record]", images)
        found: dict[str, list[tuple[Place, Fields]]] = {}
        for number, item in self._entries("annotations"):
            place = self._place("annotations", number, id_text(item.get("id")))
            key = id_text(item.get("image_id"))
            category = id_text(item.get("category_id"))
            if key not in known:
                allowed, value = "the id of one of the file's images", item.get("image_id")
                self._log.add(Fault("unknown image", "image_id", value, allowed), place)
            elif category not in self._names:
                allowed, value = "the id of one of the file's categories", item.get("category_id")
                self._log.add(Fault("unknown category", "category_id", value, allowed), place)
            else:
                found.setdefault(key, []).append((place, item))
        return found

    def _drafts(
        self, key: str, record: Record, annotations: Sequence[tuple[Place, Fields]]
    ) -> Iterator[Draft]:
        """The rows of one image.

        Raises: Fault if the image cannot be used.
        """
        if not annotations and not self._rules.num_negatives:
            allowed = "at least one annotation, or negative rows"
            remedy = "Nothing, or --negatives N"
            raise Fault(
                "image without annotations", "annotations", key, allowed, remedy, by_rule=True
            )
        name = record.text(("file_name", "coco_url", "path"))
        if not name:
            raise Fault("image without file name", "file_name", name, "a path")
        image = self._images.load(name.rpartition("/")[2] if "://" in name else name, record)
        frame = check_size(image, record.fields.get("width"), record.fields.get("height"))
        present = self._categories(annotations, image, frame)
        for item in _listed(record, "not_exhaustive_category_ids"):
            category = self._same.get(id_text(item), "")
            if category in present:  # LVIS: not every instance has a box
                present[category].is_complete = False
        asked = {
            category: held
            for category, held in present.items()
            if self._is_asked(held, image, Place(file=record.place.file, id=f"{key}, {held.name}"))
        }
        for category in self._absent(key, record, present):
            asked[category] = _Category(self._names[category])
        for id_, kind, question, reward in self._questions(asked):
            yield Draft(
                place=record.place,
                id=f"{key}-{id_}",
                messages=ask(question, 1),
                images=[image],
                reward=reward,
                extra={
                    "image_id": key,
                    "coordinate_space": self._rules.boxes.space,
                    "question_type": kind,
                    **self._licence(record),
                },
                source=self._path.stem,
            )

    def _categories(
        self,
        annotations: Sequence[tuple[Place, Fields]],
        image: LoadedImage,
        frame: tuple[float, float],
    ) -> dict[str, _Category]:
        """What the image holds, by category; boxes that cannot be used are in the log."""
        found: dict[str, _Category] = {}
        for place, item in annotations:
            category = self._same[id_text(item.get("category_id"))]
            held = found.setdefault(category, _Category(self._names[category]))
            try:
                box = self._box(item, held.name, image, frame)
                if box in held.boxes:
                    raise Fault("box repeated", "bbox", item.get("bbox"), "each instance once")
                held.boxes.append(box)
            except Fault as fault:
                self._log.add(fault, place)
                held.is_complete = held.is_complete and fault.kind == "box repeated"
        return found

    def _box(self, item: Fields, name: str, image: LoadedImage, frame: tuple[float, float]) -> Box:
        if _is_set(item.get("iscrowd")):
            raise Fault("crowd", "iscrowd", item["iscrowd"], "single instances", by_rule=True)
        if _is_set(item.get("ignore")):
            raise Fault("ignored", "ignore", item["ignore"], "instances to find", by_rule=True)
        if item.get("bbox") is None and item.get("segmentation"):
            corners = _corners_of_mask(item["segmentation"], frame)
            self._log.changed("boxes taken from masks")
        else:
            corners = read_corners(item.get("bbox"), "xywh")
        box, is_cut = place_box(corners, name, image, rules=self._rules.boxes, frame=frame)
        if is_cut:
            self._log.changed("boxes cut to their image")
        return box

    def _is_asked(self, held: _Category, image: LoadedImage, place: Place) -> bool:
        """Whether a category of an image gives rows; if not, why is in the log."""
        try:
            if not held.boxes:
                raise Fault("no usable box", "annotations", held.name, "one box", by_rule=True)
            is_counting = self._rules.task == "counting"
            if not held.is_complete and (is_counting or self._rules.incomplete == "drop"):
                allowed = "a category all of whose boxes can be used"
                raise Fault("incomplete category", "annotations", held.name, allowed, by_rule=True)
            check_rules(held.boxes, image, self._rules.boxes)
        except Fault as fault:
            self._log.add(fault, place)
            return False
        return True

    def _absent(self, key: str, record: Record, present: Mapping[str, object]) -> list[str]:
        """Categories to ask for although the image has none of them, drawn by seed and image."""
        if not self._rules.num_negatives:
            return []
        ids: Iterable[str] = self._names
        if "neg_category_ids" in record.fields:  # LVIS: only these were searched for
            ids = [id_text(item) for item in _listed(record, "neg_category_ids")]
        same = dict.fromkeys(self._same[id_] for id_ in ids if id_ in self._same)
        free = [id_ for id_ in same if id_ not in present]
        digest = hashlib.sha256(f"{self._options.seed or 0}/{key}".encode()).digest()
        drawn = random.Random(int.from_bytes(digest[:8], "big"))
        return drawn.sample(free, min(len(free), self._rules.num_negatives))

    def _questions(
        self, asked: Mapping[str, _Category]
    ) -> Iterator[tuple[str, str, str, RewardSpec]]:
        """(id, kind, question, reward) of the rows about these categories."""
        wording, mode = self._options.wording, self._rules.mode
        if self._rules.task == "counting":
            for category, held in asked.items():
                question = wording.count_class(held.name)
                yield f"count-{category}", "count_class", question, _count(len(held.boxes))
            return
        present = {category: held for category, held in asked.items() if held.boxes}
        if mode != "single" and present and (mode == "multi" or len(present) > 1):
            question = wording.box_classes(list({held.name: None for held in present.values()}))
            boxes = [box for held in present.values() for box in held.boxes]
            yield "all", "box_classes", question, box_reward(boxes)
        for category, held in asked.items():
            if mode != "multi" or not held.boxes:
                question = wording.box_classes([held.name])
                yield category, "box_class", question, box_reward(held.boxes)

    def _licence(self, record: Record) -> dict[str, object]:
        """The image's own licence, if the options state none."""
        licence = self._licences.get(id_text(record.fields.get("license")), "")
        return {"licence": licence} if licence and not self._options.licence else {}


def _count(number: int) -> RewardSpec:
    return RewardSpec(verifier="number", answer=str(number), ground_truth=f"\\boxed{{{number}}}")


def _listed(record: Record, name: str) -> list[object]:
    value = record.fields.get(name)
    return cast("list[object]", value) if isinstance(value, list) else []


def _is_set(value: object) -> bool:
    return value in (1, "1") or value == "true"


def _without_mask(fields: dict[str, object]) -> dict[str, object]:
    """An annotation without its mask, unless the mask is needed: masks are most of a file."""
    if fields.get("bbox") is not None:
        fields.pop("segmentation", None)
    return fields


def _corners_of_mask(
    segmentation: object, frame: tuple[float, float]
) -> tuple[float, float, float, float]:
    """The box around a mask: polygons, or COCO's run lengths.

    Raises: Fault if there is no such box, or pycocotools is not installed.
    """
    if isinstance(segmentation, list):
        return _corners_of_polygons(cast("list[object]", segmentation))
    size = [round(frame[1]), round(frame[0])]  # COCO has the height first
    fault = Fault("no box", "segmentation", segmentation, f"polygons, or run lengths of {size}")
    if not isinstance(segmentation, dict):
        raise fault
    coded = cast("dict[str, object]", segmentation)
    counts = coded.get("counts")
    if coded.get("size") != size or not isinstance(counts, str | list):
        raise fault
    try:
        from pycocotools import mask
    except ImportError as error:
        install = "Add the bbox, or install pycocotools: pip install 'vl-triune[data]'"
        raise Fault("no box", "bbox", None, "four numbers", install) from error
    try:
        whole: Any = coded
        if isinstance(counts, list):  # run lengths as numbers, not yet packed into a text
            whole = cast("Any", mask.frPyObjects(whole, *size))
        x, y, width, height = (float(value) for value in mask.toBbox(whole))
    except (TypeError, ValueError, OverflowError) as error:
        raise fault from error
    return read_corners([x, y, width, height], "xywh")


def _corners_of_polygons(polygons: list[object]) -> tuple[float, float, float, float]:
    numbers: list[list[object]] = [
        cast("list[object]", polygon) for polygon in polygons if isinstance(polygon, list)
    ]
    xs = [value for polygon in numbers for value in polygon[0::2]]
    ys = [value for polygon in numbers for value in polygon[1::2]]
    sides = [value for value in (*xs, *ys) if isinstance(value, int | float)]
    if not xs or len(sides) != len(xs) + len(ys) or len(xs) != len(ys):
        raise Fault("no box", "segmentation", polygons, "polygons [x1, y1, x2, y2, ...]")
    x, y = cast("list[float]", xs), cast("list[float]", ys)
    return read_corners([min(x), min(y), max(x), max(y)], "xyxy")
