"""`python -m bitcal_integrations` is the same as `bitcal`."""

from bitcal_integrations.cli import main

if __name__ == "__main__":
    main()
