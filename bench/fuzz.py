"""Damaged files for every reader: each must be read, or refused with an error of the product, in bounded time and memory.

    python bench/fuzz.py [--inputs 100000] [--seed 0] [--kinds coco model ...] [--keep FOLDER]

Sound files are made first, then damaged at random: bytes changed, cut out, doubled; values of JSON replaced by others of any kind; headers
of binary files changed. Prints how many were read, refused, and what else happened, by reader and kind; exit code 1 if anything did.
"""

import argparse
import contextlib
import json
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from semalign3d_core.runtime.errors import SemAlign3DError

SECONDS, MEGABYTES = 2.0, 500.0
SIZE = (64, 48)
ODD = (
    None,
    True,
    -1,
    0,
    1e39,
    float("nan"),
    float("inf"),
    "",
    "x",
    "1",
    [],
    {},
    [[]],
    [None],
    {"a": {}},
    10**30,
    "\ud800",
    "../../x",
    "\0",
    -1e-320,
)


@dataclass(frozen=True)
class Reader:
    """A kind of input: its file (path in the folder), what reads it, and how it is damaged."""

    file: str
    read: Callable[[Path], object]
    structured: bool = False
    damage: Callable[[bytes, np.random.Generator], bytes] | None = None


def sound_files(folder: Path) -> dict[str, Reader]:
    """Writes one sound file of every kind below ``folder`` and returns {kind: reader}."""
    from semalign3d_core.category.storage import shipped_models

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8))
    names = ["cap", "neck", "left_base", "right_base"]
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    for kind in ("JPEGImages", "ImageAnnotation", "Segmentation", "Depth", "Features/sim"):
        (folder / kind / "bottle").mkdir(parents=True)
    (folder / "PairAnnotation" / "test").mkdir(parents=True)
    picture.save(folder / "JPEGImages/bottle/a.jpg")
    for name, options in {"p.jpg": {"exif": exif}, "p.png": {}, "p.webp": {}, "p.tif": {}, "p.bmp": {}}.items():
        picture.save(folder / name, **options)
    Image.fromarray(rng.integers(0, 65535, SIZE[::-1], dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray((rng.random(SIZE[::-1]) > 0.5).astype(np.uint8) * 3).save(folder / "Segmentation/bottle/a.png")
    np.savez_compressed(folder / "Depth/bottle/a.npz", depth=rng.random(SIZE[::-1], dtype=np.float32), kind="depth")
    features = torch.from_numpy(rng.standard_normal((8, 6, 6)).astype(np.float16))
    save_file({"features": features}, folder / "Features/sim/bottle/a.safetensors")
    kps = {str(k): [10.0 + k, 20.0] for k in range(4)}
    annotation = {"filename": "a.jpg", "image_width": 64, "image_height": 48, "bndbox": [1, 2, 50, 40], "kps": kps}
    flat = [10, 20, 2, 30, 20, 2, 10, 40, 1, 30, 40, 2]
    entry = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": flat, "bbox": [5, 6, 40, 30], "iscrowd": 0}
    coco = {
        "images": [{"id": 1, "file_name": "p.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "bottle", "keypoints": names, "flip_pairs": [[2, 3]]}, {"id": 2, "name": "x"}],
        "annotations": [
            entry | {"segmentation": [[1, 1, 40, 1, 40, 30]]},
            entry | {"id": 2, "segmentation": {"counts": [3072], "size": [48, 64]}},
        ],
        "info": {"contributor": "Label Studio"},
    }
    texts = {
        "ImageAnnotation/bottle/a.json": annotation,
        "PairAnnotation/test/000001-a-a:bottle.json": {"src_imname": "a.jpg", "trg_imname": "a.jpg"},
        "keypoints.json": {"bottle": {"names": names, "flip_permutation": [0, 1, 3, 2], "groups": [[2, 3]]}},
        "Features/sim/grid.json": {"padding": "bottom_right"},
        "coco.json": coco,
        "table.json": {"p.png": {"cap": [10, 20], "neck": None}, "p.jpg": {"cap": [3, 4]}},
        "boxes.json": {"p.png": [1, 2, 30, 40]},
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "table.csv").write_text("image,cap_x,cap_y,neck_x,neck_y\np.png,10,20,,\np.jpg,3,4,5,6\n")
    (folder / "predictions.jsonl").write_text('{"pair": "000001-a-a:bottle", "points": [[1, 2], [null, null]]}\n' * 3)
    (folder / "preset.yaml").write_text("solver: gauss_newton\nweights:\n  a: [1, 2]\n")
    (folder / "demonstration.yaml").write_text("image: p.png\npoints:\n  cap: [10, 20]\n")
    shutil.copyfile(shipped_models() / "bottle.safetensors", folder / "bottle.safetensors")
    _checkpoints(folder)
    return _readers(folder)


def _checkpoints(folder):
    from semalign3d_core.learned.loop import train

    training = _training()
    with contextlib.redirect_stderr(None):
        train(training, folder, steps=2, checkpoint_every=2, quiet=True)
    torch.save({"state_dict": training.modules["net"].state_dict()}, folder / "state.pth")


def _training():
    from semalign3d_core.learned.loop import Training

    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(network.parameters())

    def step(_):
        loss = network(torch.ones(3)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return {"loss": loss}

    return Training({"net": network}, optimiser, step, settings={"seed": 1})


def _readers(folder):
    from semalign3d_core.alignment.config import AlignConfig
    from semalign3d_core.category.storage import load_model
    from semalign3d_core.cli.inputs import parse_box
    from semalign3d_core.datasets.folder import FolderDataset
    from semalign3d_core.datasets.import_coco import import_coco
    from semalign3d_core.datasets.import_table import import_table
    from semalign3d_core.datasets.records import ImageRecord
    from semalign3d_core.evaluation.keypoints.predictions import read_predictions
    from semalign3d_core.learned.loop import load_checkpoint
    from semalign3d_core.perception.backbones.precomputed import PrecomputedBackbone
    from semalign3d_core.perception.depth.precomputed import PrecomputedDepth
    from semalign3d_core.perception.depth.sensor import SensorDepth
    from semalign3d_core.perception.evidence import ImageInput, read_image
    from semalign3d_core.perception.masks.precomputed import PrecomputedMasks
    from semalign3d_core.perception.weights.pretrained import read_state
    from semalign3d_core.pipeline import load_demonstration
    from semalign3d_core.runtime.config import load_preset
    from semalign3d_core.runtime.pictures import picture_of_bytes, read_labels

    record = ImageRecord("bottle", "a", folder / "JPEGImages/bottle/a.jpg", SIZE[1], SIZE[0], np.full((4, 2), np.nan))
    image = ImageInput(np.zeros((*SIZE[::-1], 3), np.uint8), "p.png", record)
    training = _training()

    def imported(importer, *more):
        def read(path):
            with tempfile.TemporaryDirectory() as output:
                return importer(path, folder, Path(output) / "data", *more)

        return read

    readers = {f"picture {suffix}": Reader(f"p.{suffix}", read_image) for suffix in ("jpg", "png", "webp", "tif", "bmp")}
    return readers | {
        "annotation": Reader("ImageAnnotation/bottle/a.json", lambda _: FolderDataset(folder).image("bottle", "a"), True),
        "pair": Reader("PairAnnotation/test/000001-a-a:bottle.json", lambda p: FolderDataset(folder).pair("test", p.stem), True),
        "keypoints.json": Reader("keypoints.json", lambda _: FolderDataset(folder).geometry_groups("bottle"), True),
        "grid.json": Reader("Features/sim/grid.json", lambda _: PrecomputedBackbone("sim", folder), True),
        "coco": Reader("coco.json", imported(import_coco), True),
        "table json": Reader("table.json", imported(import_table, "bottle"), True),
        "table csv": Reader("table.csv", imported(import_table, "bottle")),
        "boxes": Reader("boxes.json", lambda p: parse_box(str(p), image), True),
        "predictions": Reader("predictions.jsonl", read_predictions),
        "preset": Reader("preset.yaml", lambda p: load_preset(AlignConfig, "align", str(p))),
        "demonstration": Reader("demonstration.yaml", load_demonstration),
        "model": Reader("bottle.safetensors", load_model),
        "model, signed": Reader("bottle.safetensors", load_model, damage=_signed_again),
        "checkpoint": Reader("checkpoint.safetensors", lambda p: load_checkpoint(p, training)),
        "state": Reader("state.pth", read_state),
        "depth": Reader("Depth/bottle/a.npz", lambda _: PrecomputedDepth(folder).estimate(image)),
        "sensor depth": Reader("deep.png", lambda p: SensorDepth(str(p)).estimate(image)),
        "features": Reader("Features/sim/bottle/a.safetensors", lambda _: PrecomputedBackbone("sim", folder).extract(image)),
        "mask": Reader("Segmentation/bottle/a.png", lambda p: (read_labels(p), PrecomputedMasks(folder).segment(image))),
        "picture bytes": Reader("deep.png", lambda p: picture_of_bytes(p.read_bytes())),
    }


def damaged(content: bytes, rng: np.random.Generator, structured: bool) -> bytes:
    """``content`` with random damage; of JSON mostly values exchanged, so that it stays JSON."""
    if structured and rng.random() < 0.75:
        return _other_json(json.loads(content), rng)
    data = bytearray(content)
    head = min(len(data), 400)
    for _ in range(int(rng.integers(1, 6))):
        how, most = rng.integers(8), head if rng.random() < 0.6 else len(data)
        place = int(rng.integers(0, max(most, 1)))
        if how <= 2 and data:
            data[min(place, len(data) - 1)] = rng.integers(256)
        elif how == 3:
            del data[place : place + int(rng.integers(1, 64))]
        elif how == 4:
            data[place:place] = rng.bytes(int(rng.integers(1, 64)))
        elif how == 5:
            del data[place:]
        elif how == 6:
            data[place : place + 4] = struct.pack("<I", int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 65535, 20000])))
        else:
            data += data[place : place + 256]
    return bytes(data)


def _other_json(value, rng):
    places = list(_places(value))
    for _ in range(int(rng.integers(1, 4))):
        holder, key = places[rng.integers(len(places))]
        how = rng.integers(10)
        try:
            if how < 7:
                holder[key] = ODD[rng.integers(len(ODD))]
            elif how == 7:
                del holder[key]
            elif how == 8:
                holder[key] = [holder[key]] * int(rng.integers(1, 4))
            else:
                holder[key] = str(holder[key])
        except (KeyError, IndexError):
            pass  # gone with an earlier change
    text = json.dumps(value)
    extra = rng.integers(60)
    if extra == 0:
        text = text.replace("1", "1" + "0" * 5000, 1)
    elif extra == 1:
        text = "[" * 100_000 + text
    elif extra == 2:
        text = "\ufeff" + text
    return text.encode("utf-8", "surrogatepass")


def _signed_again(content, rng):
    """A category model with other values and a hash that fits them: what somebody writes who means it."""
    from safetensors.torch import load, save

    from semalign3d_core.category.storage import HEADER_KEY, content_hash

    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][HEADER_KEY])
    tensors = load(content)
    name = sorted(tensors)[rng.integers(len(tensors))]
    how = rng.integers(5)
    if how == 0:
        tensors[name] = tensors[name][: int(rng.integers(0, len(tensors[name])))].clone()
    elif how == 1:
        tensors[name] = (tensors[name].float() * float(rng.choice([-1, 0, 1e3, 1e30]))).to(tensors[name].dtype)
    elif how == 2:
        tensors[name] = torch.full_like(tensors[name], float(rng.choice([-1, 0, 1, 7]))) * (1 if rng.random() < 0.5 else -1)
    else:
        if rng.random() < 0.3:
            header["counts"]["P"] = int(rng.choice([10**9, 5]))
        try:
            header = json.loads(_other_json(header, rng).lstrip(b"["))
        except ValueError:
            return content  # not even JSON
    if isinstance(header, dict):
        header["hash"] = content_hash(header, tensors)
    return save(tensors, {HEADER_KEY: json.dumps(header)})


def _places(value):
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def attempt(reader: Reader, path: Path) -> str:
    """``read``, ``refused``, or what else happened."""
    signal.alarm(int(10 * SECONDS))  # a reader that waits needs no processor time
    began = time.process_time()
    try:
        reader.read(path)
        outcome = "read"
    except SemAlign3DError as error:
        outcome = "refused" if len(str(error)) < 2000 else f"a message of {len(str(error))} characters"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}: {str(error)[:80]!r}"
    finally:
        signal.alarm(0)
    took = time.process_time() - began
    return f"took more than {SECONDS:g} s" if took > SECONDS else outcome


def peak_megabytes() -> float:
    """Largest memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(
    inputs: int, seed: int = 0, kinds: list[str] | None = None, keep: Path | None = None, results: dict[str, Counter] | None = None
) -> dict[str, Counter]:
    """{kind: {outcome: how often}} of ``inputs`` damaged files, the kinds in turn; ``results`` is filled while it runs."""
    signal.signal(signal.SIGALRM, _too_long)
    results = {} if results is None else results
    with tempfile.TemporaryDirectory() as name:
        readers = sound_files(Path(name))
        chosen = {kind: reader for kind, reader in readers.items() if not kinds or kind in kinds}
        sound = {kind: (Path(name) / reader.file).read_bytes() for kind, reader in chosen.items()}
        for kind, reader in chosen.items():
            results[kind] = Counter({"sound file " + attempt(reader, Path(name) / reader.file): 1})
        before = peak_megabytes()
        for number in range(inputs):
            kind = list(chosen)[number % len(chosen)]
            reader, content, path = chosen[kind], sound[kind], Path(name) / chosen[kind].file
            rng = np.random.default_rng([seed, number, len(content)])
            damage = damaged(content, rng, reader.structured) if reader.damage is None else reader.damage(content, rng)
            path.write_bytes(damage)
            outcome = attempt(reader, path)
            path.write_bytes(content)
            if peak_megabytes() - before > MEGABYTES:
                outcome, before = f"took more than {MEGABYTES:g} MB", peak_megabytes()
            results[kind][outcome] += 1
            if keep is not None and outcome not in ("read", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{kind.replace(' ', '_')}_{seed}_{number}{path.suffix}").write_bytes(damage)
    return results


def crashes(results: dict[str, Counter]) -> dict[str, Counter]:
    """What was neither read nor refused."""
    good = ("read", "refused", "sound file read", "sound file refused")
    wrong = {kind: Counter({text: n for text, n in counts.items() if text not in good}) for kind, counts in results.items()}
    return {kind: counts for kind, counts in wrong.items() if counts}


def _too_long(*_):
    raise TimeoutError("hangs")


def main() -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*")
    parser.add_argument("--keep", type=Path, help="folder for inputs that went wrong")
    options = parser.parse_args()
    began = time.perf_counter()
    results: dict[str, Counter] = {}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells take it from jobs in the background
    with contextlib.suppress(KeyboardInterrupt):  # prints what there is
        fuzz(options.inputs, options.seed, options.kinds, options.keep, results)
    for kind, counts in results.items():
        print(f"{kind:16s} read {counts['read']:6d}  refused {counts['refused']:6d}")
    for kind, counts in crashes(results).items():
        for text, count in counts.most_common():
            print(f"{kind}: {count} x {text}")
    total = sum(sum(counts.values()) for counts in results.values()) - len(results)
    wrong = sum(sum(counts.values()) for counts in crashes(results).values())
    print(f"{total} inputs, {wrong} went wrong, {time.perf_counter() - began:.0f} s, peak {peak_megabytes():.0f} MB")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
