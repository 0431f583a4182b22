"""`python -m infalign`: the command line."""

from infalign.cli.app import main

if __name__ == "__main__":
    main()
