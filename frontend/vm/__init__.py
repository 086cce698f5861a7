"""A throwaway virtual machine with this machine's file system, through virtme-ng."""
