"""Everything that touches a tensor or a token id: models, losses, training, evaluation, reports."""
