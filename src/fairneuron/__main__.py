"""``python -m fairneuron`` is ``fairneuron``."""

from fairneuron.cli import main

if __name__ == "__main__":
    main()
