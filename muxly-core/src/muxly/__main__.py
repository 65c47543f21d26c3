"""The command line as ``python -m muxly``."""

from muxly.cli import main

if __name__ == "__main__":
    main()
