"""Cost of one training step of the GeoAware post-processor in its official size: two images of 60 x 60 cells and 3968 channels.

python bench/geoaware_step.py [--threads 2] [--device cpu] [--precision float32] [--variants]
"""

import argparse
import resource
import time

import torch

from semalign3d_core.learned.geoaware.network import OFFICIAL_DIMS, AggregationNetwork
from semalign3d_core.learned.geoaware.samples import Sample
from semalign3d_core.learned.geoaware.train import GeoAwareTraining, PairModule, Step


class OnePair:
    """A random pair with twenty keypoints, every time the same."""

    def __init__(self, count):
        keypoints = torch.cat([torch.rand(2, 20, 2) * 800 + 20, torch.ones(2, 20, 1)], -1)
        self.sample = Sample(torch.randn(count, sum(OFFICIAL_DIMS), 60, 60).half(), keypoints, (30.0, 30.0), torch.arange(20))

    def at(self, number, following=None):
        return self.sample


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--variants", action="store_true", help="with the two mirror images (four images)")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = GeoAwareTraining(schedule="one_cycle", pose_variants=options.variants, precision=options.precision)
    module = PairModule(AggregationNetwork(dropout=config.dropout), config, 60).to(options.device)
    optimiser = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    step = Step(module, optimiser, OnePair(4 if options.variants else 2), config, 100)
    walls, cpus = [], []
    for number in range(options.steps + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        float(step(number)["loss"])  # waits for the device
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    walls, cpus = sorted(walls[1:]), sorted(cpus[1:])  # the first one allocates
    print(f"{4 if options.variants else 2} images, {options.device}, {options.precision}, {options.threads} threads: ", end="")
    print(f"{walls[len(walls) // 2]:.3f} s per step ({walls[0]:.3f} to {walls[-1]:.3f}), {cpus[len(cpus) // 2]:.2f} s of CPU", end="")
    if options.device == "cpu":
        print(f", peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    else:
        print(f", peak memory of the device {torch.cuda.max_memory_allocated() / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
