"""Every parameter of a transformers model belongs to one part."""

import pytest
from tiny_hf import FAMILIES
from torch import nn

from vl.models.hf_parts import parts_of
from vl.policy import PARTS

CONNECTORS = {
    "qwen25": {"model.visual.merger"},
    "qwen3": {"model.visual.merger", "model.visual.deepstack_merger_list"},
    "llava": {"model.multi_modal_projector", "model.image_newline"},
    "idefics3": {"model.connector"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_parameter_belongs_to_exactly_one_part(family):
    model, _ = FAMILIES[family]()
    parts = parts_of(model)
    assert set(parts) == set(PARTS)
    assert set(parts["connector"]) == CONNECTORS[family]
    for name, _ in model.named_parameters():
        assert sum(name.startswith(prefixes) for prefixes in parts.values()) == 1, name


def test_a_parameter_of_no_known_part_is_an_error_that_names_it():
    model, _ = FAMILIES["llava"]()
    model.model.extra_gate = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"2 parameters belong to no known part.*extra_gate"):
        parts_of(model)
