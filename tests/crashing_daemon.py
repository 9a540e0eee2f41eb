"""`adaptd serve` in a process that kills itself at the instant named by three arguments.

python -m tests.crashing_daemon FUNCTION LINE OCCURRENCE serve ...
"""

import sys

from runtime.cli import main
from tests.crashing import Point, die_at

if __name__ == "__main__":
    function, line, occurrence = sys.argv[1:4]
    del sys.argv[1:4]
    die_at(Point(function, int(line), int(occurrence)))
    main()
