"""FreeU as the published Stable Diffusion features use it: chosen by the width of the hidden state, part of the features.

Source: GeoAware-SC (CVPR 2024) over FreeU (CVPR 2024). The strengths belong to widths 1280 and 640 of Stable Diffusion 1.x.
"""

import torch

# width of the hidden state, relative to the U-Net's widest -> (factor of its first half, factor of the skip's low frequencies)
STRENGTHS = {1: (1.2, 0.9), 2: (1.4, 0.2)}


def filter_low_frequencies(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Scales the 2x2 block of lowest frequencies of each channel of ``x`` (B, C, H, W) by ``factor``; float32 inside."""
    rows, columns = x.shape[-2:]
    spectrum = torch.fft.fftshift(torch.fft.fft2(x.float()), dim=(-2, -1))
    gain = torch.ones(rows, columns, device=x.device)
    gain[max(0, rows // 2 - 1) : rows // 2 + 1, max(0, columns // 2 - 1) : columns // 2 + 1] = factor
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum * gain, dim=(-2, -1))).real.to(x.dtype)


def apply_freeu(hidden: torch.Tensor, skip: torch.Tensor, widest: int = 1280) -> tuple[torch.Tensor, torch.Tensor]:
    """(hidden, skip) before their concatenation: half of the hidden channels scaled, the skip filtered, by ``STRENGTHS``.

    hidden: (B, C, H, W), skip: (B, D, H, W); widest: width of the U-Net's bottleneck. Other widths pass unchanged.
    """
    ratio, rest = divmod(widest, hidden.shape[1])
    if rest or ratio not in STRENGTHS:
        return hidden, skip
    gain, factor = STRENGTHS[ratio]
    half = hidden.shape[1] // 2
    return torch.cat([hidden[:, :half] * gain, hidden[:, half:]], dim=1), filter_low_frequencies(skip, factor)
