"""The host: what it allows, its settings and how they are put back, its memory."""
