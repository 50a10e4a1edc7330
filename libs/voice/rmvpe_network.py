"""What does RMVPE compute? The network `E2E` of the public `rmvpe.pt`, and the same with its batch norms folded in.

Wei et al. 2023, "RMVPE: A robust model for vocal pitch estimation in polyphonic music" (arXiv 2306.15412).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

N_MELS = 128
BINS = 360


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and ReLU, plus the input. `[B, in, T, F]` → `[B, out, T, F]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.shortcut: nn.Module = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c_in, t, f] → [b, c_out, t, f]."""
        out: Tensor = self.conv(x) + self.shortcut(x)
        return out


class BlockStack(nn.Module):
    """`blocks` residual blocks in a row, the first changes the channel count."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList(ResidualBlock(inputs if i == 0 else outputs, outputs) for i in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c_in, t, f] → [b, c_out, t, f]."""
        for block in self.conv:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Halves time and frequency per layer and keeps what it had before for the decoder."""

    def __init__(self, inputs: int, channels: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        stacks = []
        for i in range(layers):
            outputs = channels * 2**i
            stacks.append(BlockStack(inputs, outputs, blocks))
            inputs = outputs
        self.layers = nn.ModuleList(stacks)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x [b, 1, t, f] → [b, c, t / 2ⁿ, f / 2ⁿ], and what each of the n layers had before halving."""
        x = self.bn(x)
        skips = []
        for layer in self.layers:
            x = layer(x)
            skips.append(x)
            x = nn.functional.avg_pool2d(x, 2)
        return x, skips


class Intermediate(nn.Module):
    """The bottom of the U."""

    def __init__(self, inputs: int, outputs: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BlockStack(inputs if i == 0 else outputs, outputs, blocks) for i in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c_in, t, f] → [b, c_out, t, f]."""
        for layer in self.layers:
            x = layer(x)
        return x


class DecoderLayer(nn.Module):
    """Doubles time and frequency, then joins the encoder's tensor of that size."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.conv2 = nn.ModuleList(ResidualBlock(outputs * 2 if i == 0 else outputs, outputs) for i in range(blocks))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x [b, c_in, t, f], skip [b, c_out, 2t, 2f] → [b, c_out, 2t, 2f]."""
        x = torch.cat((self.conv1(x), skip), dim=1)
        for block in self.conv2:
            x = block(x)
        return x


class Decoder(nn.Module):
    """The way up."""

    def __init__(self, inputs: int, layers: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(inputs // 2**i, inputs // 2 ** (i + 1), blocks) for i in range(layers))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """x [b, c, t / 2ⁿ, f / 2ⁿ] and the encoder's `skips` → [b, c_out, t, f]."""
        for layer, skip in zip(self.layers, reversed(skips), strict=True):
            x = layer(x, skip)
        return x


class DeepUnet(nn.Module):
    """Encoder, bottom and decoder. `[B, 1, T, 128]` → `[B, channels, T, 128]`."""

    def __init__(self, blocks: int, layers: int, bottom_layers: int, channels: int) -> None:
        super().__init__()
        top = channels * 2 ** (layers - 1)
        self.encoder = Encoder(1, channels, layers, blocks)
        self.intermediate = Intermediate(top, top * 2, bottom_layers, blocks)
        self.decoder = Decoder(top * 2, layers, blocks)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, 1, t, f] → [b, c, t, f]; t and f are multiples of 2ⁿ, n layers deep."""
        x, skips = self.encoder(x)
        out: Tensor = self.decoder(self.intermediate(x), skips)
        return out


class BiGru(nn.Module):
    """One bidirectional GRU layer. `[B, T, inputs]` → `[B, T, 2 * hidden]`."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden, num_layers=1, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, t, features] → [b, t, 2 * hidden]."""
        out: Tensor = self.gru(x)[0]
        return out


class RmvpeNetwork(nn.Module):
    """The network `E2E` of RMVPE. Log-mel `[B, 128, T]`, T a multiple of `2 ** layers` → salience `[B, T, 360]` in 0…1.

    Defaults are the public model's (741 tensors). Names of tensors are the public file's.
    """

    def __init__(self, blocks: int = 4, layers: int = 5, bottom_layers: int = 4, channels: int = 16) -> None:
        super().__init__()
        self.multiple = 2**layers
        self.unet = DeepUnet(blocks, layers, bottom_layers, channels)
        self.cnn = nn.Conv2d(channels, 3, 3, padding=1)
        self.fc = nn.Sequential(BiGru(3 * N_MELS, 256), nn.Linear(512, BINS), nn.Dropout(0.25), nn.Sigmoid())

    def forward(self, mel: Tensor) -> Tensor:
        x = self.cnn(self.unet(mel.transpose(-1, -2).unsqueeze(1)))
        salience: Tensor = self.fc(x.transpose(1, 2).flatten(-2))
        return salience


def fold_norms(network: RmvpeNetwork) -> RmvpeNetwork:
    """`network` itself for inference: batch norms become part of the convolution before them (the same to 1e-6).

    Its tensors no longer have the public file's names.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for i, (first, second) in enumerate(itertools.pairwise(module)):
                if isinstance(first, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(second, nn.BatchNorm2d):
                    module[i] = fuse_conv_bn_eval(first, second, transpose=isinstance(first, nn.ConvTranspose2d))
                    module[i + 1] = nn.Identity()
    return network
