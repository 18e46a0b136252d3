"""Instance segmentation by name: the surest instance of the category, a fallback, and models of the transformers library."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from semalign3d_core.perception import masks
from semalign3d_core.perception.evidence import ImageInput
from semalign3d_core.perception.masks.instances import InstanceMasks
from semalign3d_core.runtime.errors import InputError

LABELS = {0: "car", 1: "airplane", 2: "potted plant"}


class Known(torch.nn.Module):
    """Answers with given scores, and masks that are the four quarters of the picture."""

    def __init__(self, scores):
        super().__init__()
        self.config, self.scores = SimpleNamespace(id2label=LABELS), torch.tensor(scores)

    def forward(self, pixel_values):
        masks = torch.full((1, 4, 8, 8), -9.0)
        for query in range(4):
            masks[0, query, 4 * (query // 2) : 4 * (query // 2) + 4, 4 * (query % 2) : 4 * (query % 2) + 4] = 9
        return SimpleNamespace(class_queries_logits=self.scores[None], masks_queries_logits=masks)


def picture(category):
    return ImageInput(np.zeros((40, 60, 3), np.uint8), "p.jpg", SimpleNamespace(category=category))


SCORES = [[9.0, 0, 0, 0], [12.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 0, 9.0]]  # two cars, an aeroplane, nothing


def test_the_surest_instance_of_the_category_is_taken():
    source = InstanceMasks(Known(SCORES), "known")
    car = source.segment(picture("car"))
    assert car.shape == (40, 60) and car[:18, 32:].all() and not car[:, :28].any() and not car[22:].any()
    aeroplane = source.segment(picture("aeroplane"))  # which COCO calls an airplane
    assert aeroplane[22:, :28].all() and not aeroplane[:18].any()
    assert source.segment(picture("pottedplant")) is None


def test_unsure_instances_go_to_the_fallback():
    fallback = SimpleNamespace(name="there", segment=lambda image, box, points: torch.ones(40, 60, dtype=torch.bool))
    source = InstanceMasks(Known([[1.0, 0, 0, 0]] * 4), "known", fallback=fallback)
    assert source.segment(picture("car")).all()
    assert source.name == "instances@known+there"


def test_unknown_categories_are_named():
    with pytest.raises(InputError, match="knows no 'sofa'"):
        InstanceMasks(Known(SCORES), "known").segment(picture("sofa"))
    with pytest.raises(InputError, match="instances needs a model"):
        masks.create("instances")


@pytest.mark.slow
def test_a_model_of_the_library_is_read_from_its_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    stages = [f"stage{number}" for number in range(1, 5)]
    swin = transformers.SwinConfig(embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, out_features=stages)
    shape = {"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_queries": 5, "num_attention_heads": 2, "encoder_layers": 1}
    config = transformers.Mask2FormerConfig(backbone_config=swin, decoder_layers=2, dim_feedforward=16, **shape, id2label=LABELS)
    torch.manual_seed(0)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.bias[:] = torch.tensor([20.0, 0, 0, 0])  # all queries are cars
    model.save_pretrained(tmp_path)
    mask = masks.create(f"instances:{tmp_path}").segment(picture("car"))
    assert mask is None or mask.shape == (40, 60)
    with torch.no_grad():
        model.class_predictor.bias[:] = torch.tensor([0.0, 0, 0, 20])
    model.save_pretrained(tmp_path)
    assert masks.create(f"instances:{tmp_path}").segment(picture("car")) is None
