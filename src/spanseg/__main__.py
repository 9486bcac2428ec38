"""``python -m spanseg``: the same as the ``spanseg`` command."""

from spanseg.cli.main import main

if __name__ == "__main__":
    main()
