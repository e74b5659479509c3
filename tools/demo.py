"""The first name of tools/predict.py."""

import sys

from fasthamer.tools.predict import main

if __name__ == "__main__":
    sys.exit(main())
