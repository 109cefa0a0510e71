"""data_specs."""
