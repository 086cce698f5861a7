"""The commands of kleak, one a file."""
