"""Everything that touches a tensor or a token id: models, rollouts, losses, training, evaluation, run reports."""
