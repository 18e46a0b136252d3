"""Runs parity vectors: ``python test/conformance/run.py DIR``.

Every ``.npz`` in DIR and below is known by ``<name of its folder>/<stem>``; one line each: name, ``ok`` / ``FAIL`` /
``MISSING``, largest error, its tolerance. The exit code is the number of files that are not ok (at most 125).
"""

import importlib
import sys
import traceback
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

# A module checks_<folder> holds CHECKS: {stem: check(arrays, path) -> iterable of (label, error, tolerance)};
# path is that of the file, for vectors that come with a JSON fixture beside them.
SYSTEMS = ("semalign3d", "metrics", "geoaware", "spherical_maps", "sfnet")


def load_checks():
    """All checks, as {"<folder>/<stem>": function}."""
    here = Path(__file__).parent
    present = [s for s in SYSTEMS if (here / f"checks_{s}.py").is_file()]
    return {f"{s}/{stem}": check for s in present for stem, check in importlib.import_module(f"checks_{s}").CHECKS.items()}


def run_file(path, checks):
    """(status, error, tolerance, detail) of one vector file; the comparison nearest to its limit is reported."""
    check = checks.get(f"{path.parent.name}/{path.stem}")
    if check is None:
        return "MISSING", None, None, ""
    try:
        with np.load(path, allow_pickle=False) as stored:
            results = [(label, float(error), float(tolerance)) for label, error, tolerance in check(dict(stored), path)]
    except Exception as error:  # the line must name the file, whatever broke in it
        return "FAIL", None, None, "".join(traceback.format_exception_only(error)).strip()
    if not results:
        return "FAIL", None, None, "the check compared nothing"
    label, error, tolerance = max(results, key=_closeness)
    failed = [name for name, e, t in results if not e <= t]
    return ("FAIL" if failed else "ok"), error, tolerance, ", ".join(failed) or label


def _closeness(result):
    _, error, tolerance = result
    if not error <= tolerance:  # also NaN
        return float("inf")
    return error / tolerance if tolerance > 0 else 0.0


def main(folder):
    files = sorted(Path(folder).resolve().rglob("*.npz"))
    if not files:
        print(f"no .npz files in {folder}")
        return 1
    checks, bad = load_checks(), 0
    for path in files:
        status, error, tolerance, detail = run_file(path, checks)
        bad += status != "ok"
        numbers = "" if error is None else f"  error {error:.3g}  tolerance {tolerance:.3g}"
        print(f"{path.parent.name}/{path.stem:32s} {status:8s}{numbers}  {detail}", flush=True)
    print(f"{len(files) - bad} of {len(files)} ok")
    return min(bad, 125)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
