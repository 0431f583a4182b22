"""Independent checks of the package's numbers: `make verify`."""
