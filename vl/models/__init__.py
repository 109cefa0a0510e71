"""Model families that the trainer can build."""
