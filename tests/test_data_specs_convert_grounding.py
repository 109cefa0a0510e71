import pytest
from converted import answer, convert, picture, truths, write

BOX = [10, 20, 30, 40]  # x, y, width, height in 100 x 200 px
WANTED = (100, 100, 400, 300)


@pytest.fixture
def run(tmp_path):
    for number in (1, 2, 3):
        picture(tmp_path / f"{number}.png", seed=number)

    def go(value, *words, name="refs.json"):
        return convert(tmp_path, "refcoco", write(tmp_path / name, value), *words)

    return go


def test_every_phrase_of_a_record_is_a_row_with_the_phrase_as_label(run):
    records = [
        {
            "image": "1.png",
            "sentences": [{"raw": "Left dog.", "sent": "left dog"}, {"sent": "the brown one"}],
            "bbox": BOX,
            "ref_id": 7,
        },
        {"file_name": "2.png", "expression": "a cat's tail", "bbox": [BOX, [0, 0, 10, 20]]},
    ]
    done = run(records, "--box-layout", "xywh")
    assert done.code == 0 and done.listed == []
    assert truths(done.samples) == {
        "box left dog.": answer((*WANTED, "left dog")),
        "box the brown one.": answer((*WANTED, "the brown one")),
        "box a cat's tail.": answer((0, 0, 100, 100, "a cat's tail"), (*WANTED, "a cat's tail")),
    }
    assert [row.id for row in done.samples] == ["refs-7-0", "refs-7-1", "refs-1-0"]
    assert {row.task for row in done.samples} == {"grounding"}
    assert done.samples[0].extra["question_type"] == "box_phrase"


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"bbox": [10, 20, 40, 60]}, ["--box-layout", "xyxy"]),
        ({"bbox": BOX}, ["--box-layout", "xywh"]),
        ({"bbox_xyxy": [10, 20, 40, 60]}, []),
        ({"bbox_xywh": BOX}, []),
        ({"bbox": [0.1, 0.1, 0.4, 0.3]}, ["--box-layout", "xyxy", "--coordinates", "unit"]),
        ({"box": [100, 100, 400, 300]}, ["--box-layout", "xyxy", "--coordinates", "per_mille"]),
        ({"bbox": [20, 40, 60, 80], "width": 200, "height": 400}, ["--box-layout", "xywh"]),
        ({"solution": [[10, 20, 40, 60]]}, ["--box-layout", "xyxy"]),
    ],
)
def test_the_layout_and_the_space_of_the_numbers_are_declared(run, record, words):
    done = run([{"image": "1.png", "phrase": "dog", **record}], *words)
    assert truths(done.samples) == {"box dog.": answer((*WANTED, "dog"))}


def test_four_numbers_of_unknown_layout_are_refused(run, capsys):
    done = run([{"image": "1.png", "phrase": "dog", "bbox": BOX}])
    assert done.code == 2
    said = capsys.readouterr().err
    assert "refs.json record 0: bbox is [10, 20, 30, 40]" in said
    assert "--box-layout xywh or --box-layout xyxy" in said


def test_references_are_joined_with_their_instances_file(run, tmp_path, capsys):
    refs = [
        {"ref_id": 3, "ann_id": 50, "image_id": 1, "split": "val", "sentences": [{"sent": "dog"}]},
        {"ref_id": 4, "ann_id": 51, "image_id": 2, "split": "train", "sentences": ["cat"]},
        {"ref_id": 5, "ann_id": 99, "image_id": 1, "split": "val", "sentences": ["bird"]},
    ]
    instances = {
        "images": [
            {"id": 1, "file_name": "1.png", "width": 100, "height": 200},
            {"id": 2, "file_name": "2.png", "width": 100, "height": 200},
        ],
        "annotations": [
            {"id": 50, "image_id": 1, "bbox": BOX, "category_id": 1},
            {"id": 51, "image_id": 2, "bbox": [0, 0, 10, 20], "category_id": 1},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = write(tmp_path / "instances.json", instances)
    done = run(refs, path)
    assert truths(done.samples) == {
        "box dog.": answer((*WANTED, "dog")),
        "box cat.": answer((0, 0, 100, 100, "cat")),
    }
    assert [row.extra["split"] for row in done.samples] == ["val", "train"]
    assert done.kinds() == [("no box", "5")]
    assert "rows of several splits (val 1, train 1)" in capsys.readouterr().err
    done = run(refs, path, "--split", "val")
    assert [row.question for row in done.samples] == ["box dog."]
    assert done.kinds(by_rule=True) == [("other split", "4")]


def described(**more):
    return {
        "images": [
            {"id": 1, "file_name": "1.png", "group_id": 5},
            {"id": 2, "file_name": "2.png", "group_id": 6},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "bbox": BOX, "sent_id": [8]},
            {"id": 2, "image_id": 1, "bbox": [[0, 0, 10, 20]], "sent_id": [8, 9]},
            {"id": 3, "image_id": 2, "bbox": BOX, "sent_id": [9], "iscrowd": 1},
            {"id": 4, "image_id": 7, "bbox": BOX, "sent_id": [8]},
            {"id": 5, "image_id": 2, "bbox": BOX, "sent_id": [77]},
        ],
        "sentences": [
            {"id": 8, "raw_sent": "a dog without a leash", "group_id": [5]},
            {"id": 9, "raw_sent": "an unwatched dog", "group_id": [5]},
            {"id": 10, "raw_sent": "a blue hat", "group_id": [5]},
            {"id": 11, "raw_sent": "a clown", "group_id": [6]},
        ],
        **more,
    }


def test_d3_gives_phrases_with_several_boxes_and_with_none(run):
    done = run(described())
    dog = "a dog without a leash"
    assert [(row.extra["image_id"], row.question) for row in done.samples] == [
        ("1", f"box {dog}."),
        ("1", "box an unwatched dog."),
        ("1", "box a blue hat."),
        ("2", "box a clown."),
    ]
    assert truths(done.samples) == {
        f"box {dog}.": answer((0, 0, 100, 100, dog), (*WANTED, dog)),
        "box an unwatched dog.": answer((0, 0, 100, 100, "an unwatched dog")),
        "box a blue hat.": answer(),
        "box a clown.": answer(),
    }
    assert done.kinds() == [("unknown image", "4"), ("unknown phrase", "5")]
    assert done.kinds(by_rule=True) == [("crowd", "3")]


def test_omnilabel_lists_the_images_of_each_description(run):
    value = described(
        descriptions=[
            {"id": 8, "text": "dog one", "image_ids": [1, 2]},
            {"id": 9, "text": "dog two", "image_ids": [1]},
        ]
    )
    del value["sentences"]
    for item in value["annotations"]:
        item["description_ids"] = item.pop("sent_id")
    done = run(value)
    asked = [(row.extra["image_id"], row.question) for row in done.samples]
    assert asked == [("1", "box dog one."), ("1", "box dog two."), ("2", "box dog one.")]
    assert done.samples[2].reward.ground_truth == answer()


def test_phrases_may_be_the_categories_or_the_captions_of_the_images(run):
    images = [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "1.png"}]
    annotations = [
        {"id": 1, "image_id": 1, "bbox": BOX, "category_id": 3},
        {"id": 2, "image_id": 2, "bbox": [0, 0, 10, 20], "category_id": 3},
    ]
    categories = [{"id": 3, "name": "a red ball"}]
    value = {"images": images[:1], "annotations": annotations[:1], "categories": categories}
    assert truths(run(value).samples) == {"box a red ball.": answer((*WANTED, "a red ball"))}
    value = {
        "images": [item | {"caption": text} for item, text in zip(images, "ab", strict=True)],
        "annotations": annotations,
        "categories": categories,
    }
    wanted = {"box a.": answer((*WANTED, "a")), "box b.": answer((0, 0, 100, 100, "b"))}
    assert truths(run(value).samples) == wanted


def test_records_that_cannot_be_used_are_listed(run):
    good = {"image": "1.png", "phrase": "dog", "bbox_xywh": BOX, "id": "good"}
    changes = {
        "no image": {"image": None},
        "image missing": {"image": "gone.png"},
        "no phrase": {"phrase": " . "},
        "degenerate box": {"bbox_xywh": [1, 2, 0, 4]},
        "no box": {"bbox_xywh": None},
        "box outside the image": {"bbox_xywh": [[1, 2, 3, 4], [200, 0, 10, 10]]},
        "contradiction": {"bbox_xywh": [1, 2, 3, 4]},
    }
    records = [good, *[good | change | {"id": kind} for kind, change in changes.items()]]
    done = run([*records, 7])
    assert [row.id for row in done.samples] == ["refs-good-0"]
    others = [(kind, kind) for kind in changes if kind != "contradiction"]
    assert sorted(done.kinds()) == sorted(
        [*others, ("contradiction", "refs-contradiction-0"), ("not a record", "")]
    )
    line = next(line for line in done.listed if line["kind"] == "contradiction")
    assert (line["file"], line["record"]) == ("refs.json", 7)


def test_a_phrase_with_many_or_large_boxes_is_left_out_by_rule(run):
    records = [{"image": "1.png", "phrase": "dog", "bbox_xywh": [0, 0, 100, 150]}]
    done = run(records, "--max-box-frac", "0.5")
    assert done.code == 2 and done.kinds(by_rule=True) == [("box too large", "")]


def test_a_file_without_phrases_is_refused(run, capsys):
    value = described()
    del value["sentences"]
    assert run(value).code == 2
    assert "sentences, descriptions, categories, or a caption" in capsys.readouterr().err
