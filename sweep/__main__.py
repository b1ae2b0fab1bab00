"""python -m sweep plan|run|resume|status|stop|dashboard|reproduce"""

import sys

from conf.errors import exit_status
from sweep.commands import main

if __name__ == "__main__":
    try:
        sys.exit(exit_status(lambda: main(sys.argv[1:])))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
