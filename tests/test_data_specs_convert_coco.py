import json
import math

import pytest
from converted import answer, convert, picture, truths, write

from data_specs import read_samples

DOG, CAT, SEAT = 1, 0, "s-9"
CATEGORIES = [
    {"id": DOG, "name": "dog"},
    {"id": CAT, "name": "cat"},
    {"id": SEAT, "name": "driver's seat"},
]


def box(image_id, category, bbox, **more):
    return {"image_id": image_id, "category_id": category, "bbox": bbox} | more


def dataset(*annotations, images=(1,), **more):
    listed = [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 200} for i in images]
    numbered = [{"id": 100 + n} | item for n, item in enumerate(annotations)]
    return {"images": listed, "categories": CATEGORIES, "annotations": numbered} | more


@pytest.fixture
def run(tmp_path):
    """Converts a COCO object whose images 1 to 4 lie in a folder."""
    for number in range(1, 5):
        picture(tmp_path / "images" / f"{number}.png", seed=number)

    def go(value, *words, name="coco.json"):
        path = write(tmp_path / name, value)
        return convert(tmp_path, "coco", path, "--images", tmp_path / "images", *words)

    return go


def test_a_row_asks_for_every_box_of_one_category(run):
    done = run(
        dataset(
            box(1, DOG, [10, 20, 30, 40]),
            box(1, DOG, [50, 10, 50, 100]),
            box(1, SEAT, [0, 0, 100, 200]),
        )
    )
    assert done.code == 0 and done.listed == []
    assert truths(done.samples) == {
        "box every dog.": answer((500, 50, 1000, 550, "dog"), (100, 100, 400, 300, "dog")),
        "box every driver's seat.": answer((0, 0, 1000, 1000, "driver's seat")),
    }
    row = done.samples[0]
    assert (row.id, row.source, row.task) == ("coco-1-1", "coco", "detection")
    assert row.messages[0].content == "<image>box every dog."
    assert row.reward.verifier == "detection"
    assert row.reward.params == {"det_verifier_normalized": False}
    assert row.images[0].open().size == (100, 200)
    assert row.extra == {
        "image_id": "1",
        "coordinate_space": "per_mille",
        "image_width": 100,
        "image_height": 200,
        "question_type": "box_class",
    }


def test_pixel_rows_say_so_and_keep_the_numbers(run):
    (row,) = run(dataset(box(1, DOG, [10, 20, 30, 40])), "--space", "pixel").samples
    assert row.reward.ground_truth == answer((10, 20, 40, 60, "dog"))
    assert row.extra["coordinate_space"] == "pixel"
    assert (row.extra["image_width"], row.extra["image_height"]) == (100, 200)


def test_modes_ask_one_category_all_of_them_or_both(run):
    value = dataset(box(1, DOG, [0, 100, 10, 20]), box(1, CAT, [0, 0, 10, 20]))
    both = answer((0, 0, 100, 100, "cat"), (0, 500, 100, 600, "dog"))
    singles = {
        "box every dog.": answer((0, 500, 100, 600, "dog")),
        "box every cat.": answer((0, 0, 100, 100, "cat")),
    }
    assert truths(run(value, "--mode", "single").samples) == singles
    assert truths(run(value, "--mode", "multi").samples) == {"box every dog and cat.": both}
    everything = run(value, "--mode", "both").samples
    assert truths(everything) == {"box every dog and cat.": both, **singles}
    assert [row.extra["question_type"] for row in everything].count("box_classes") == 1
    one = dataset(box(1, DOG, [0, 100, 10, 20]))
    assert [row.question for row in run(one, "--mode", "both").samples] == ["box every dog."]


def test_counting_asks_how_many_and_is_judged_as_a_number(run):
    value = dataset(*[box(1, DOG, [n, 0, 10, 20]) for n in range(3)], box(2, CAT, [0, 0, 9, 9]))
    value["images"].append({"id": 2, "file_name": "2.png"})
    done = run(value, "--task", "counting", "--negatives", "1")
    rows = {(row.extra["image_id"], row.question): row.reward for row in done.samples}
    assert rows["1", "count every dog."].ground_truth == r"\boxed{3}"
    assert rows["2", "count every cat."].ground_truth == r"\boxed{1}"
    assert sorted(reward.answer for reward in rows.values()) == ["0", "0", "1", "3"]
    assert {reward.verifier for reward in rows.values()} == {"number"}
    assert {row.task for row in done.samples} == {"counting"}


ODD = [
    (box(1, DOG, [10, 20, 0, 40]), "degenerate box"),
    (box(1, DOG, [10, 20, 30, -40.5]), "degenerate box"),
    (box(1, DOG, [10, 20, math.nan, 40]), "not a box"),
    (box(1, DOG, [10, 20, 30]), "not a box"),
    (box(1, DOG, None), "not a box"),
    (box(1, DOG, "10 20 30 40"), "not a box"),
    (box(1, DOG, [90, 180, 30, 40]), "box outside the image"),
    (box(1, DOG, [10, 20, 0.01, 0.01]), "box too small"),
    (box(1, DOG, [10, 20, 30, 40]), "box repeated"),
    (box(77, DOG, [10, 20, 30, 40]), "unknown image"),
    (box(None, DOG, [10, 20, 30, 40]), "unknown image"),
    (box(1, 77, [10, 20, 30, 40]), "unknown category"),
    (box(1, None, [10, 20, 30, 40]), "unknown category"),
    (box(1, DOG, None, segmentation={"size": [1, 1], "counts": "x"}), "no box"),
    (box(1, DOG, None, segmentation=[["a", "b"]]), "no box"),
]


def test_every_odd_annotation_is_counted_and_listed_by_its_id_and_the_rest_is_used(run, capsys):
    good = box(1, DOG, [10, 20, 30, 40])
    done = run(dataset(good, *[item for item, _ in ODD]))
    assert done.code == 0
    assert truths(done.samples) == {"box every dog.": answer((100, 100, 400, 300, "dog"))}
    listed = {line["id"]: line for line in done.listed}
    assert {id_: line["kind"] for id_, line in listed.items()} == {
        str(101 + n): kind for n, (_, kind) in enumerate(ODD)
    }
    line = listed["101"]
    assert (line["file"], line["record"], line["field"]) == ("coco.json", 1, "annotations.bbox")
    assert line["value"] == "[10, 20, 0, 40]" and not line["by_rule"]
    said = capsys.readouterr().err
    assert "not a box 4" in said and "coco.json row 1 (id 101): annotations.bbox is" in said
    assert len(ODD) == sum(line["by_rule"] is False for line in done.listed)


def test_crowds_are_left_out_by_rule_and_counting_never_counts_beside_them(run):
    value = dataset(
        box(1, DOG, [10, 20, 30, 40]),
        box(1, DOG, [0, 0, 100, 100], iscrowd=1),
        box(1, CAT, [10, 20, 30, 40]),
    )
    kept = run(value)
    assert truths(kept.samples)["box every dog."] == answer((100, 100, 400, 300, "dog"))
    assert kept.kinds(by_rule=True) == [("crowd", "101")] and kept.kinds() == []
    dropped = run(value, "--incomplete", "drop")
    assert list(truths(dropped.samples)) == ["box every cat."]
    assert ("incomplete category", "1, dog") in dropped.kinds(by_rule=True)
    assert list(truths(run(value, "--task", "counting").samples)) == ["count every cat."]


def test_ids_may_be_texts_numbers_or_floats_and_need_no_order(run):
    value = dataset(box("1", "1", [10, 20, 30, 40]), box(2.0, 1.0, [10, 20, 30, 40]))
    value["images"] = [{"id": 2, "file_name": "2.png"}, {"id": "1", "file_name": "1.png"}]
    for item in value["annotations"]:
        del item["id"]
    done = run(value)
    assert [row.id for row in done.samples] == ["coco-2-1", "coco-1-1"]
    assert done.listed == []


def test_two_ids_of_one_name_are_one_category(run):
    value = dataset(box(1, DOG, [10, 20, 30, 40]), box(1, 5, [0, 0, 10, 20]))
    value["categories"] = [*CATEGORIES, {"id": 5, "name": " dog "}, {"id": DOG, "name": "wolf"}]
    done = run(value)
    wanted = answer((0, 0, 100, 100, "dog"), (100, 100, 400, 300, "dog"))
    assert truths(done.samples) == {"box every dog.": wanted}
    assert done.kinds() == [("category id repeated", "1")]


def test_images_that_cannot_be_used_are_listed_with_their_path(run, tmp_path):
    (tmp_path / "images" / "broken.png").write_bytes(b"no picture")
    whole = (tmp_path / "images" / "4.png").read_bytes()
    (tmp_path / "images" / "half.png").write_bytes(whole[: len(whole) // 2])
    value = dataset(*[box(n, DOG, [10, 20, 30, 40]) for n in (1, 2, 3, 4, 5, 6)])
    value["images"] += [
        {"id": 2, "file_name": "gone.png"},
        {"id": 3, "file_name": "broken.png"},
        {"id": 4, "file_name": "4.png", "width": 200, "height": 100},
        {"id": 5},
        {"id": 6, "file_name": "half.png"},
        {"id": 1, "file_name": "1.png"},
        {"file_name": "1.png"},
        "7.png",
    ]
    done = run(value)
    assert [row.id for row in done.samples] == ["coco-1-1"]
    assert sorted(done.kinds()) == [
        ("image id repeated", "1"),
        ("image missing", "2"),
        ("image size differs", "4"),
        ("image unreadable", "3"),
        ("image unreadable", "6"),
        ("image without file name", "5"),
        ("image without id", ""),
        ("not a record", ""),
    ]
    missing = next(line for line in done.listed if line["kind"] == "image missing")
    assert missing["value"] == "'gone.png'" and str(tmp_path / "images") in missing["allowed"]


def test_an_image_is_found_by_its_name_where_the_file_has_other_folders(run):
    value = dataset(box(1, DOG, [10, 20, 30, 40]))
    value["images"][0]["file_name"] = "train2017/1.png"
    assert len(run(value).samples) == 1
    value["images"][0] = {"id": 1, "coco_url": "http://images.example.org/train2017/1.png"}
    assert len(run(value).samples) == 1


def test_images_without_annotations_give_rows_only_if_negatives_are_asked_for(run):
    value = dataset(box(1, DOG, [10, 20, 30, 40]), images=(1, 2))
    assert run(value).kinds(by_rule=True) == [("image without annotations", "2")]
    done = run(value, "--negatives", "2")
    empty = [row for row in done.samples if row.reward.ground_truth == "<answer>[]</answer>"]
    asked = {(row.extra["image_id"], row.question) for row in empty}
    assert len(asked) == 4 and ("1", "box every dog.") not in asked
    again = run(value, "--negatives", "2").samples
    assert [row.question for row in again] == [row.question for row in done.samples]
    seeds = {
        tuple(row.question for row in run(value, "--negatives", "1", "--seed", str(s)).samples)
        for s in range(6)
    }
    assert len(seeds) > 1


def test_lvis_says_itself_what_was_searched_for(run):
    value = dataset(box(1, DOG, [10, 20, 30, 40]), box(1, CAT, [10, 20, 30, 40]))
    value["images"][0] |= {"neg_category_ids": [SEAT], "not_exhaustive_category_ids": [DOG]}
    done = run(value, "--negatives", "9", "--incomplete", "drop")
    assert set(truths(done.samples)) == {"box every cat.", "box every driver's seat."}


def test_the_papers_rules_leave_out_categories_not_images(run):
    value = dataset(
        *[box(1, DOG, [n, 0, 10, 20]) for n in range(11)],
        box(1, CAT, [0, 0, 100, 101]),
        box(1, SEAT, [0, 0, 100, 100]),
    )
    done = run(value, "--max-boxes-per-category", "10", "--max-box-frac", "0.5")
    assert list(truths(done.samples)) == ["box every driver's seat."]
    assert [kind for kind, _ in done.kinds(by_rule=True)] == ["too many boxes", "box too large"]
    assert done.kinds() == []


def test_boxes_are_taken_from_polygons_where_there_is_no_bbox(run):
    polygon = [[10, 20, 40, 20, 40, 60], [12, 30, 14, 30, 14, 32]]
    done = run(dataset(box(1, DOG, None, segmentation=polygon)))
    assert truths(done.samples) == {"box every dog.": answer((100, 100, 400, 300, "dog"))}


def test_boxes_are_taken_from_run_lengths_with_pycocotools(run):
    mask = pytest.importorskip("pycocotools.mask")
    counts = [10 * 200 + 20]  # column by column: 10 empty ones, then 30 of 20 empty, 40 full
    for _ in range(29):
        counts += [40, 160]
    counts += [40, 200 * 100 - sum(counts) - 40]
    plain = {"size": [200, 100], "counts": counts}
    packed = mask.frPyObjects(plain, 200, 100)
    packed["counts"] = packed["counts"].decode()
    wanted = {"box every dog.": answer((100, 100, 400, 300, "dog"))}
    for segmentation in (plain, packed):
        assert truths(run(dataset(box(1, DOG, None, segmentation=segmentation))).samples) == wanted


def test_boxes_are_those_that_pycocotools_reads(run, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    annotations = [box(1 + n % 3, (DOG, CAT)[n % 2], [n, 2 * n, 10 + n, 20 + n]) for n in range(20)]
    value = dataset(*annotations, images=(1, 2, 3))
    value["categories"] = CATEGORIES[:2]
    rows = run(value, "--space", "pixel").samples
    theirs = coco.COCO(str(write(tmp_path / "again.json", value)))
    for row in rows:
        image, category = map(int, row.id.split("-")[1:])
        wanted = [
            (x, y, x + w, y + h, {DOG: "dog", CAT: "cat"}[category])
            for x, y, w, h in (
                item["bbox"]
                for item in theirs.loadAnns(theirs.getAnnIds(imgIds=image, catIds=[category]))
            )
        ]
        assert row.reward.ground_truth == answer(*sorted(wanted, key=lambda b: (b[1], b[0])))
    assert len(rows) == 6


def test_several_files_keep_their_own_ids_and_rows_have_ids_of_their_own(tmp_path):
    paths = []
    for name, seed in (("train", 1), ("val", 2)):
        picture(tmp_path / name / "1.png", seed=seed)
        paths.append(
            write(tmp_path / name / f"{name}.json", dataset(box(1, DOG, [10, 20, 30, 40 + seed])))
        )
    done = convert(tmp_path, "coco", *paths, "--source", "mine", "--split", "train")
    assert [row.id for row in done.samples] == ["mine-1-1", "mine-1-1-2"]
    assert {row.extra["split"] for row in done.samples} == {"train"}
    assert done.samples[0].images != done.samples[1].images


def test_a_limit_with_a_seed_draws_images_by_chance(run):
    value = dataset(*[box(n, DOG, [10, 20, 30, 40]) for n in (1, 2, 3, 4)], images=(1, 2, 3, 4))
    first = run(value, "--limit", "2").samples
    assert [row.id for row in first] == ["coco-1-1", "coco-2-1"]
    drawn = {
        tuple(row.id for row in run(value, "--limit", "2", "--seed", str(seed)).samples)
        for seed in range(5)
    }
    assert len(drawn) > 2 and all(len(ids) == 2 for ids in drawn)


def test_linked_images_are_paths_from_the_folder_of_the_rows(run, tmp_path):
    done = run(dataset(box(1, DOG, [10, 20, 30, 40])), "--link")
    raw = next(read_samples(done.out)).images[0]
    assert raw.data is None
    assert raw.encoded() == (tmp_path / "images" / "1.png").read_bytes()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "out").rename(moved / "out")
    (tmp_path / "images").rename(moved / "images")
    assert next(read_samples(moved / "out" / done.out.name)).images[0].open().size == (100, 200)


def test_licences_come_from_the_options_or_from_the_file(run):
    value = dataset(box(1, DOG, [10, 20, 30, 40]), licenses=[{"id": 3, "name": "CC BY 2.0"}])
    value["images"][0]["license"] = 3
    assert run(value).samples[0].extra["licence"] == "CC BY 2.0"
    assert run(value, "--licence", "CC0").samples[0].extra["licence"] == "CC0"


def test_a_picture_turned_by_its_exif_note_is_the_picture_that_a_viewer_shows(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # the file is 200 wide and 100 high, and lies on its side
    picture(tmp_path / "1.jpg", size=(200, 100), exif=exif)
    value = dataset(box(1, DOG, [10, 20, 30, 40]))
    value["images"] = [{"id": 1, "file_name": "1.jpg", "width": 100, "height": 200}]
    for words in ((), ("--decode",)):
        done = convert(tmp_path, "coco", write(tmp_path / "coco.json", value), *words)
        assert truths(done.samples) == {"box every dog.": answer((100, 100, 400, 300, "dog"))}
    value["images"][0] |= {"width": 200, "height": 100}
    done = convert(tmp_path, "coco", write(tmp_path / "coco.json", value))
    assert done.code == 2 and done.kinds() == [("image size differs", "1")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([{"image": "a.png"}], "format coco needs an object with images, annotations"),
        ({"images": [], "annotations": []}, "missing: categories"),
        (
            {"images": [], "annotations": {"1": {}}, "categories": []},
            "annotations is {'1': {}}; allowed: a list of objects",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(run, capsys, value, words):
    done = run(value)
    assert done.code == 2 and words in capsys.readouterr().err
    assert not done.out.exists()


def test_masks_are_not_kept_while_a_file_is_read(tmp_path):
    from data_specs.convert_coco import _without_mask
    from data_specs.convert_files import load_json
    from data_specs.convert_log import ConvertLog

    items = [box(1, DOG, [1, 2, 3, 4], segmentation=[[1, 2]]), box(1, DOG, None, segmentation=[])]
    path = write(tmp_path / "a.json", items)
    first, second = load_json(path, ConvertLog(), _without_mask)
    assert "segmentation" not in first and "segmentation" in second
    assert json.loads(path.read_text())[0]["segmentation"] == [[1, 2]]
