"""python -m npbert"""

import sys

from npbert.cli import main

sys.exit(main())
