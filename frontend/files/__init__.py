"""Writing files: where a name leads, who owns what root makes, names that are any bytes."""
