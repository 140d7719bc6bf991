"""`python -m metarun.sinks RUN SINK`: see `follower`."""

import sys

from metarun.sinks import follower

if __name__ == "__main__":
    sys.exit(follower.main(sys.argv[1:]))
