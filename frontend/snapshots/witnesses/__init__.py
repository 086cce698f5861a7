"""What each report of the kernel says over several snapshots, one report a file."""
