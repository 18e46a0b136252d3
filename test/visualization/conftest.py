"""Makes the simulated category and the headless browser of other tests importable here."""

import sys
from pathlib import Path

for folder in ("alignment", "evaluation"):
    sys.path.append(str(Path(__file__).parents[1] / folder))
