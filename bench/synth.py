"""How fast and how varied the synthetic world is, and how well nearest neighbour does on its simulated features.

    python bench/synth.py                       # images per second of `semalign3d synth`, two processes, 256 x 256
    python bench/synth.py --features            # also nearest-neighbour PCK of the simulated features, per category
    python bench/synth.py --sheet sheet.png     # also a contact sheet with masks and keypoints, for a person to look at
    python bench/synth.py --world varied [--pictures DIR]     # the world that training sees

Images per second are wall time of the whole writer (rendering, files, start of the processes), so they depend on what else the
machine does; CPU seconds per image in the table are those of one rendering in this process. Red keypoints are left, blue
ones right, green ones neither.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from semalign3d_core.datasets.synthetic import CATEGORIES, KEYPOINTS, WORLDS, RenderConfig, make_instance, mean_shape, sample_rendering
from semalign3d_core.datasets.synthetic.scene import SceneConfig
from semalign3d_core.datasets.synthetic.simulated_features import SimulatedFeatureConfig, simulated_features
from semalign3d_core.datasets.synthetic.viewpoints import ViewConfig
from semalign3d_core.datasets.synthetic.writer import SPLITS, WriterConfig, instance_range, write_data_set
from semalign3d_core.geometry.image_grid import SquareGrid
from semalign3d_core.perception.evidence import FeatureMap

FIRST_TEST_INSTANCE = instance_range(SPLITS[-1])[0]


def writer_speed(count, size, workers, config):
    """Images per second, and CPU seconds per image, of the writer with all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), _cpu_seconds()
        write_data_set(folder, list(CATEGORIES), {"trn": count}, 0, WriterConfig(size=size, render=config), workers)
        images = count * len(CATEGORIES)
        return images / (time.perf_counter() - start), (_cpu_seconds() - cpu) / images


def _cpu_seconds():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def category_row(category, size, count, config):
    """CPU seconds per rendering, visible keypoints, shape variation (sd of a keypoint, share of the diameter), truncated, occluded."""
    start = time.process_time()
    renderings = [sample_rendering(category, FIRST_TEST_INSTANCE + n, n, size, config) for n in range(count)]
    seconds = (time.process_time() - start) / count
    shapes = np.stack([make_instance(category, n, config.world).complete_keypoints for n in range(200)])
    spread = np.sqrt(((shapes - mean_shape(category, 200)) ** 2).sum(-1).mean())
    visible = np.mean([r.visible.sum() for r in renderings])
    return (
        seconds,
        len(KEYPOINTS[category].names),
        visible,
        spread,
        np.mean([r.truncated for r in renderings]),
        np.mean([r.occluded for r in renderings]),
    )


def nearest_neighbour(category, config, images=16, pairs=60):
    """PCK at 0.1 and 0.05 (mean over pairs) of nearest-neighbour transfer with simulated features, unseen instances, whole objects."""
    plain = RenderConfig(ViewConfig(small_rate=0, truncation_rate=0, upside_down_rate=0), SceneConfig(occluder_rate=0), samples=1)
    renderings = [sample_rendering(category, FIRST_TEST_INSTANCE + n, n, 256, plain) for n in range(images)]
    grid = SquareGrid(256, 256, config.cells)
    maps = [FeatureMap(torch.from_numpy(simulated_features(r, config)), grid) for r in renderings]
    ordered = [(a, b) for a in range(images) for b in range(images) if a != b]
    scores = []
    for index in np.random.default_rng(0).permutation(len(ordered))[:pairs]:
        a, b = ordered[index]
        both = renderings[a].visible & renderings[b].visible
        if not both.any():
            continue
        queries = maps[a].sample(torch.tensor(renderings[a].keypoints_2d[both], dtype=torch.float32))
        found = grid.cell_centres()[(queries @ maps[b].values.flatten(1)).argmax(1)].numpy()
        error = np.linalg.norm(found - renderings[b].keypoints_2d[both], axis=1)
        box = renderings[b].box
        scores.append([(error <= alpha * (box[2:] - box[:2]).max()).mean() for alpha in (0.1, 0.05)])
    return np.mean(scores, axis=0)


def contact_sheet(path, config, columns=8):
    """Writes pictures of unseen instances with mask outlines and keypoints."""
    rows = [np.concatenate([_annotated(category, n, config) for n in range(columns)], axis=1) for category in CATEGORIES]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def _annotated(category, number, config):
    r = sample_rendering(category, FIRST_TEST_INSTANCE + number, number, 256, config)
    picture = r.image.copy()
    cv2.drawContours(picture, cv2.findContours(r.mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0], -1, (0, 255, 255), 1)
    for k in np.flatnonzero(r.visible):
        name = KEYPOINTS[category].names[k]
        colour = (255, 60, 60) if name.endswith("_left") else (60, 60, 255) if name.endswith("_right") else (60, 255, 60)
        x, y = (int(v) for v in r.keypoints_2d[k].round())
        cv2.circle(picture, (x, y), 3, (255, 255, 255), -1)
        cv2.circle(picture, (x, y), 2, colour, -1)
        cv2.putText(picture, str(k), (x + 4, y - 2), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 0), 1)
    return picture


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="images per category")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--world", choices=WORLDS, default="simple")
    parser.add_argument("--pictures", default="", help="folder of photographs for the varied world")
    options = parser.parse_args()
    config = RenderConfig(world=options.world, pictures=options.pictures)
    print(
        "category    CPU s/image  keypoints  visible  shape sd  truncated  occluded" + ("  NN PCK 0.1 / 0.05" if options.features else "")
    )
    pck = []
    for category in CATEGORIES:
        seconds, keypoints, visible, spread, truncated, occluded = category_row(category, options.size, options.count, config)
        line = f"{category:10s}  {seconds:11.3f}  {keypoints:9d}  {visible:7.1f}  {spread:8.3f}  {truncated:9.2f}  {occluded:8.2f}"
        if options.features:
            pck.append(nearest_neighbour(category, SimulatedFeatureConfig()))
            line += f"  {pck[-1][0]:10.3f} / {pck[-1][1]:.3f}"
        print(line, flush=True)
    if options.features:
        print(f"nearest neighbour, mean of categories: {np.mean(pck, axis=0)[0]:.3f} / {np.mean(pck, axis=0)[1]:.3f}")
    speed, cpu = writer_speed(options.count, options.size, options.workers, config)
    size, workers = f"{options.size} x {options.size}", options.workers
    print(f"writer: {speed:.1f} images/s at {size} with {workers} processes; {cpu:.3f} CPU s per image, start of the processes included")
    if options.sheet:
        contact_sheet(options.sheet, config)


if __name__ == "__main__":
    main()
