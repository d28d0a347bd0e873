"""`python -m threefactor`, the same as the command `threefactor`."""

from threefactor.cli import main

if __name__ == "__main__":
    main()
