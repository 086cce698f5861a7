"""Options of commands, by group: each group reaches a command as one value."""
