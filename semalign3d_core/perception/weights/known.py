"""The pretrained weights that have a short name: where they are, which commit, how large, under which licence.

docs/weights.md says how commits and licences were checked; bench/providers.py counts the parameters.
"""

from dataclasses import dataclass

FILES = ("*.json", "*.safetensors")
DIFFUSION_FILES = tuple(
    f"{part}/{name}"
    for part, names in {
        "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
        "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
        "text_encoder": ("config.json", "model.safetensors"),
        "tokenizer": ("*",),
    }.items()
    for name in names
)

APACHE = "Apache-2.0"
DINOV3 = "DINOv3 License (gated)"
OPENRAIL = "CreativeML OpenRAIL-M"
NONCOMMERCIAL = "CC-BY-NC-4.0"
UNSTATED = "none stated"


@dataclass(frozen=True)
class Weights:
    """Weights on the Hugging Face hub.

    id, revision: repository and commit (None: not pinned here, see :func:`semalign3d_core.perception.weights.store.locate`)
    parameters: millions, 4 bytes each on disk;  licence: of the weights;  patterns: files needed
    """

    id: str
    revision: str | None
    parameters: float
    licence: str
    patterns: tuple = FILES

    @property
    def megabytes(self) -> float:
        """Size in single precision."""
        return 4 * self.parameters

    @property
    def free(self) -> bool:
        """Whether anybody may use them for anything, so that they may be a default."""
        return self.licence == APACHE


# spelling of a provider -> its weights
KNOWN = {
    "dinov2:small": Weights("facebook/dinov2-small", "ed25f3a31f01632728cabb09d1542f84ab7b0056", 22.1, APACHE),
    "dinov2:base": Weights("facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415", 86.6, APACHE),
    "dinov2:large": Weights("facebook/dinov2-large", "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c", 304.4, APACHE),
    "dinov2:giant": Weights("facebook/dinov2-giant", "611a9d42f2335e0f921f1e313ad3c1b7178d206d", 1136.5, APACHE),
    "dinov2:small_registers": Weights("facebook/dinov2-with-registers-small", "0d9846e56b43a21fa46d7f3f5070f0506a5795a9", 22.1, APACHE),
    "dinov2:base_registers": Weights("facebook/dinov2-with-registers-base", "a1d738ccfa7ae170945f210395d99dde8adb1805", 86.6, APACHE),
    "dinov2:large_registers": Weights("facebook/dinov2-with-registers-large", "e4c89a4e05589de9b3e188688a303d0f3c04d0f3", 304.4, APACHE),
    "dinov2:giant_registers": Weights("facebook/dinov2-with-registers-giant", "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb", 1136.5, APACHE),
    "dinov3:small": Weights("facebook/dinov3-vits16-pretrain-lvd1689m", "114c1379950215c8b35dfcd4e90a5c251dde0d32", 21.6, DINOV3),
    "dinov3:base": Weights("facebook/dinov3-vitb16-pretrain-lvd1689m", "5931719e67bbdb9737e363e781fb0c67687896bc", 85.7, DINOV3),
    "dinov3:large": Weights("facebook/dinov3-vitl16-pretrain-lvd1689m", "ea8dc2863c51be0a264bab82070e3e8836b02d51", 303.1, DINOV3),
    "sd:1.5": Weights(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "451f4fe16113bff5a5d2269ed5ad43b0592e9a14", 1066.2, OPENRAIL, DIFFUSION_FILES
    ),
    "clip:large_336": Weights(
        "openai/clip-vit-large-patch14-336", "ce19dc912ca5cd21c8a653c79e251e808ccabcd1", 427.9, UNSTATED, ("*.json", "pytorch_model.bin")
    ),
    "depth_anything_v2:small": Weights(
        "depth-anything/Depth-Anything-V2-Small-hf", "5426e4f0f36572d16453bbda7a8389317b1bef99", 24.8, APACHE
    ),
    "depth_anything_v2:base": Weights(
        "depth-anything/Depth-Anything-V2-Base-hf", "b1958afc87fb45a9e3746cb387596094de553ed8", 97.5, NONCOMMERCIAL
    ),
    "depth_anything_v2:large": Weights(
        "depth-anything/Depth-Anything-V2-Large-hf", "7581137eff8d4e94f6e796d3baea0e9fa79b22d2", 335.3, NONCOMMERCIAL
    ),
    "depth_anything_v2:metric_indoor": Weights(
        "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf", "8078d68a9c75a972131914f6afd0c1723be0da7f", 24.8, UNSTATED
    ),
    "depth_anything_v2:metric_outdoor": Weights(
        "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf", "fd2c22027eaf20374204f14099b8341e1925ad39", 24.8, UNSTATED
    ),
    "sam:base": Weights("facebook/sam-vit-base", "70c1a07f894ebb5b307fd9eaaee97b9dfc16068f", 93.7, APACHE),
    "sam:large": Weights("facebook/sam-vit-large", "6851e0441005b0fb96f2cc4dfac472f3d1b14af1", 312.3, APACHE),
    "sam:huge": Weights("facebook/sam-vit-huge", "87aecf0df4ce6b30cd7de76e87673c49644bdf67", 641.1, APACHE),
    "sam2:tiny": Weights("facebook/sam2.1-hiera-tiny", "de431c4043854a71d8101e17995dfe596bf101a5", 38.9, APACHE),
    "sam2:small": Weights("facebook/sam2.1-hiera-small", "ee5bba1d82bb8749febdf90f45e84b687142ba03", 46.0, APACHE),
    "sam2:base_plus": Weights("facebook/sam2.1-hiera-base-plus", "b7320756a13354e7530a63935656d35b2f91a290", 80.8, APACHE),
    "sam2:large": Weights("facebook/sam2.1-hiera-large", "665f8e2ad61cf5f53d65644ff27c8ee525124610", 224.4, APACHE),
}
