import sys

from datasets.robotcar.convert import main

if __name__ == "__main__":
    sys.exit(main())
