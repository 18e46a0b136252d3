"""Makes the simulated category of the alignment's tests importable here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "alignment"))
