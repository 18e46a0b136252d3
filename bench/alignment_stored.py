"""Alignments that take seconds each, kept in files, so that a benchmark can be repeated and resumed."""

import hashlib
import json
from pathlib import Path

from alignment_scores import timed
from safetensors import safe_open
from safetensors.torch import save_file

from semalign3d_core.runtime.config import to_dict
from semalign3d_core.runtime.files import atomic_path
from semalign3d_core.runtime.packing import pack, unpack


class StoredAlignments:
    """``align`` of an :class:`Aligner` with a memory in ``folder``; ``seconds`` is the CPU time of the last alignment when it was made."""

    def __init__(self, folder, aligner):
        self.folder, self.aligner, self.seconds = Path(folder), aligner, float("nan")
        self.key = hashlib.sha256(f"{aligner.model_hash} {json.dumps(to_dict(aligner.config))}".encode()).hexdigest()[:16]

    def align(self, evidence):
        """The alignment of an image, which is known by its name."""
        path = self.folder / f"{evidence.name.replace(' ', '_')}_{self.key}.safetensors"
        if not path.is_file():
            alignment, seconds = timed(lambda: self.aligner.align(evidence))
            structure, tensors = pack(alignment)
            with atomic_path(path) as temporary:
                save_file(tensors, temporary, {"structure": json.dumps(structure), "seconds": str(seconds)})
        with safe_open(path, "pt") as stored:
            header, tensors = stored.metadata(), {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dictionary)
        self.seconds = float(header["seconds"])
        return unpack(json.loads(header["structure"]), tensors)
