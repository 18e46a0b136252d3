"""Show how far the object in one image is from that in another, part by part: also mirrored and turned, as adaptive_pose compares them."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from semalign3d_core.cli.inputs import read_input
from semalign3d_core.runtime.files import write_json


@dataclass
class Options:
    """Options of ``semalign3d imd``."""

    source: tyro.conf.Positional[Path] = tyro.MISSING
    """Image that is mirrored and turned."""
    target: tyro.conf.Positional[Path] = tyro.MISSING
    """Image that it is compared with."""
    backbone: str = "compact"
    """Feature backbone."""
    masks: str = "compact"
    """Mask source, so that only the objects count; none compares whole images."""
    rotations: bool = False
    """Also turn the source by one, two and three quarters."""
    dataset: Path | None = None
    """Data set folder that the images belong to; needed by precomputed features and masks."""
    output: Path = Path("out")
    """Folder for SOURCE_TARGET.imd.json and SOURCE_TARGET.imd.png."""


def run(options: Options) -> int:
    """Compares the images, writes the distances and their picture, and prints which pose of the source is nearest."""
    import numpy as np
    import torch

    from semalign3d_core.matchers.imd import distance_map
    from semalign3d_core.perception import backbones, masks
    from semalign3d_core.perception.look import close_up
    from semalign3d_core.results import write_picture
    from semalign3d_core.visualization.distance_picture import captioned, distance_panel, in_rows

    backbone = backbones.create(options.backbone, options.dataset)
    segmenter = masks.create(options.masks, options.dataset, backbone=backbone)

    def seen(image, mask):
        """(features, mask on the square that they cover) of an image."""
        features = backbone.extract(image)
        mask = torch.ones(image.height, image.width) if mask is None else mask.float()
        return features, features.grid.square(mask[None])[0]

    images = [read_input(path, options.dataset) for path in (options.source, options.target)]
    found = [None if segmenter is None else segmenter.segment(image) for image in images]
    source, target = (close_up(image, mask, backbone) for image, mask in zip(images, found, strict=True))
    mask = found[0]
    poses = {"as it is": (source, mask), "mirrored": (source.mirror(), None if mask is None else mask.flip(-1))}
    for quarters in (1, 2, 3) if options.rotations else ():
        poses[f"turned by {90 * quarters}"] = source.turn(quarters), None if mask is None else mask.rot90(quarters)
    goal, maps = seen(target, found[1]), {}
    for name, (image, mask) in poses.items():
        features, inside = seen(image, mask)
        values = distance_map(features.values.flatten(1).T, goal[0].values.flatten(1).T, inside, goal[1]).cpu().numpy()
        maps[name] = image, features.grid, values, float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
    finite = np.concatenate([values[np.isfinite(values)] for _, _, values, _ in maps.values()])
    limits = tuple(np.percentile(finite, (2, 98))) if len(finite) else (0.0, 1.0)
    row = [distance_panel(image.rgb, grid, values, limits, f"{name}: {mean:.3f}") for name, (image, grid, values, mean) in maps.items()]
    path = options.output / f"{options.source.stem}_{options.target.stem}.imd.png"
    write_picture(path, in_rows([[captioned(target.rgb, "target"), *row]]))
    distances = {name: mean for name, (*_, mean) in maps.items()}
    nearest = min(distances, key=lambda name: np.nan_to_num(distances[name], nan=np.inf))
    write_json(path.with_suffix(".json"), {"source": source.name, "target": target.name, "distances": distances, "nearest": nearest})
    print("\n".join(f"{name:14s} {mean:.4f}{'  nearest' if name == nearest else ''}" for name, mean in distances.items()))
    print(f"-> {path}")
    return 0
