import sys

from datasets.convert.convert import main

if __name__ == "__main__":
    sys.exit(main())
