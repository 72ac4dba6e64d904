"""``python -m tapps_otel``: the command line."""

from tapps_otel.cli import main

if __name__ == "__main__":
    main()
