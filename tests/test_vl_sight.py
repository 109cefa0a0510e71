"""Remembered features of frozen vision do not depend on what they were computed beside."""

import torch
from tiny_hf import tiny
from tiny_vl import corpus_of

from vl.sight import Sight


def test_features_of_a_frozen_tower_are_the_same_bits_in_whatever_order_they_were_asked_for():
    policy, corpus = tiny("qwen25"), corpus_of(1, 1, 1, 1, 1, 1)
    together, apart = (Sight(policy, corpus, is_frozen=True) for _ in range(2))
    together.prepare(range(6))
    for index in range(6):
        apart.prepare([index])
    for one, other in zip(together.features(range(6)), apart.features(range(6)), strict=True):
        assert torch.equal(one.tokens[0], other.tokens[0])
