import sys

from cityweave.cli import main

sys.exit(main())
