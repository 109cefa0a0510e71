"""Our rewards inside other trainers: `verl` and `trl`; neither is needed to import these."""
