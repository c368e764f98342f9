"""`python -m gategen`, the same program as `gategen`."""

from gategen.cli import main

if __name__ == "__main__":
    main()
