"""One TOML file per dataset, and the records of the built-in dataset `demo`."""
