"""`python -m rmkit.server`."""

import sys

from rmkit.server.run import main

sys.exit(main())
