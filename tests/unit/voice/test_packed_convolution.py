"""Does a packed convolution give what PyTorch's own gives?"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from libs.voice.packed_convolution import PackedConvolution

PLAIN = {
    "kernel of three": nn.Conv2d(8, 12, 3, padding=1),
    "no bias, stride": nn.Conv2d(8, 4, (5, 1), stride=(2, 1), padding=(2, 0), bias=False),
    "transposed": nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1),
}


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("packed", [None, False])
@pytest.mark.parametrize("name", list(PLAIN))
def test_a_packed_convolution_has_the_numbers_of_the_plain_one(name: str, packed: bool | None, relu: bool) -> None:
    torch.manual_seed(1)
    plain = PLAIN[name]
    x = torch.randn(3, 8, 10, 6).to(memory_format=torch.channels_last)

    with torch.inference_mode():
        expected = functional.relu(plain(x)) if relu else plain(x)
        found = PackedConvolution(plain, relu=relu, packed=packed)(x)
        rounded = PackedConvolution(plain, relu=relu, packed=packed, dtype=torch.bfloat16)(x.bfloat16())

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, atol=0.05, rtol=0.05)
