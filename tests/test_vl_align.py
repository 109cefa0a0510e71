"""Dense targets of known boxes, the alignment's loss, the corpus and derived seeds."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_vl import SIZE_PX, corpus_of, picture_of_noise, sample, tiny_policy

from vl.align import DenseHead, DenseTargets, annotated_objects, dense_labels, dense_targets
from vl.corpus import build_corpus, owners_of
from vl.seeds import derive_seed, generator_for
from vl.sight import Sight
from vl.text import pad_right

POLICY = tiny_policy()  # four patches a side
DOG = {"bbox_2d": [0, 0, 500, 1000], "label": "dog"}
CAT = {"bbox_2d": [250, 250, 500, 500], "label": "cat"}


def pictures_of(*objects):
    return corpus_of(1, objects=json.dumps(list(objects))).pictures


def targets_of(*objects):
    head = DenseHead(POLICY.model.config, ["cat", "dog"])
    return dense_targets(pictures_of(*objects), head)


def test_a_box_over_the_left_half():
    found = targets_of(DOG)
    assert found.label[0].view(4, 4).tolist() == [[2, 2, 0, 0]] * 4
    # its centre, (0.25, 0.5), lies in column 1 of row 2
    assert found.centre[0].nonzero().tolist() == [[2 * 4 + 1]]
    assert found.sides[0, 0].tolist() == [0.0, 0.0, 0.5, 1.0]
    assert found.sides[0, 3].tolist() == [0.0] * 4


@pytest.mark.parametrize("objects", [(DOG, CAT), (CAT, DOG)])
def test_the_smaller_object_wins_a_shared_patch(objects):
    label = targets_of(*objects).label[0].view(4, 4)
    assert label.tolist() == [[2, 2, 0, 0], [2, 1, 0, 0], [2, 2, 0, 0], [2, 2, 0, 0]]


def test_an_object_smaller_than_a_patch_still_covers_the_one_with_its_centre():
    found = targets_of({"bbox_2d": [900, 0, 930, 30], "label": "cat"})
    assert found.label[0].nonzero().tolist() == found.centre[0].nonzero().tolist() == [[3]]


def test_a_picture_without_annotation_is_background():
    found = dense_targets(corpus_of(1).pictures, DenseHead(POLICY.model.config, ["dog"]))
    assert not found.label.any() and not found.centre.any() and not found.sides.any()


def test_labels_and_objects_of_a_corpus():
    pictures = pictures_of(DOG, CAT)
    assert dense_labels(pictures) == ["cat", "dog"]
    assert annotated_objects(pictures[0])[1] == ("cat", (250.0, 250.0, 500.0, 500.0))


def test_the_dense_loss_by_hand():
    head = DenseHead(POLICY.model.config, ["dog"])
    with torch.no_grad():
        head.read_out.weight.zero_()
        head.read_out.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]))
    label = torch.zeros(1, 16, dtype=torch.long)
    label[0, 0] = 1
    centre = label.bool()
    sides = torch.zeros(1, 16, 4)
    found = head.loss(torch.zeros(1, 16, 16), DenseTargets(label, centre, sides))
    # two equal classes: log 2 whatever the weights; 15 + 3 parts of log 2 over 16 patches;
    # the one covered patch is off by 0.5 in one of four sides
    expected = math.log(2) + math.log(2) * 18 / 16 + 8 * 0.5 / 4
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_a_corpus_holds_each_picture_once_with_its_rows():
    corpus = corpus_of(2, 1)
    assert corpus.num_samples == 3 and len(corpus.pictures) == 2
    assert owners_of(corpus.pictures) == [0, 0, 1]
    assert [picture.source for picture in corpus.pictures] == ["dots", "words"]
    expected = torch.tensor(list(picture_of_noise(1).tobytes()), dtype=torch.uint8)
    (tiles,) = Sight(POLICY, corpus).pixels([1])
    assert torch.equal(tiles.pixels.flatten(), expected)


def test_other_sizes_are_squashed():
    large = Image.effect_noise((100, 60), 80).convert("RGB")
    expected = large.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)
    found = POLICY.encode([large]).pixels[0].int()
    difference = (found - torch.tensor(list(expected.tobytes())).view(found.shape)).abs()
    assert difference.max() <= 2  # of 255: the resizers round otherwise


@pytest.mark.parametrize("count", [0, 2])
def test_a_row_without_picture_or_with_others_than_its_group_is_refused(count):
    row = sample(0, 0)
    other = replace(row, images=row.images * count)
    with pytest.raises(ValueError, match=rf"made row 0 \(id dots-0-0\): images: found {count}"):
        build_corpus([[row, other] if count else [other]])


def test_rows_are_padded_on_the_right():
    found = pad_right([[5, 6], [], [7]], 9)
    assert found.ids.tolist() == [[5, 6], [9, 9], [7, 9]]
    assert found.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert pad_right([[]], 9).ids.shape == (1, 1)


def test_seeds_differ_by_seed_stream_and_position_and_repeat():
    seeds = [
        derive_seed(seed, stream, position)
        for seed in (0, 1)
        for stream in ("rollout", "evaluate")
        for position in range(50)
    ]
    assert len(set(seeds)) == 200 and all(0 <= seed < 2**63 for seed in seeds)
    # the first eight bytes of sha256("0/rollout/0"), halved: written down, so that it never moves
    assert derive_seed(0, "rollout", 0) == 5744114572069357870
    one, other = (torch.rand(3, generator=generator_for(3, "x", 4)) for _ in range(2))
    assert torch.equal(one, other)
