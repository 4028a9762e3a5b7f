"""``python -m partialsum``, for launchers such as torchrun that start a module."""

from __future__ import annotations

from partialsum.cli import main

if __name__ == "__main__":  # workers of a pool import this module under another name
    main()
