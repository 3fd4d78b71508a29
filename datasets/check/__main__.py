import sys

from datasets.check.check import main

if __name__ == "__main__":
    sys.exit(main())
