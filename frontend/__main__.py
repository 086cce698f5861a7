"""Run kleak as ``python3 -m kleak``."""

from kleak.cli import main

if __name__ == "__main__":
    main()
