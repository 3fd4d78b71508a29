import sys

from benchmarks.study.study import main

if __name__ == "__main__":
    sys.exit(main())
