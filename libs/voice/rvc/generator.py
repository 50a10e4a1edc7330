"""How does a latent become sound? HiFi-GAN (Kong et al. 2020), with a sine source where there is a pitch (NSF)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.voice.rvc.config import NetworkConfig
from libs.voice.rvc.layers import LRELU_SLOPE, Noise, NormedConv1d, NormedConvTranspose1d

SINE_AMPLITUDE = 0.1
VOICED_NOISE = 0.003


class SineSource(nn.Module):
    """F0 → excitation: a sine where voiced, noise everywhere, one learned gain (Wang et al. 2019)."""

    def __init__(self, sample_rate: int, hop_length: int) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.l_linear = nn.Linear(1, 1)

    def forward(self, f0: Tensor, noise: Noise) -> Tensor:
        """f0 in Hz [b, t], 0 where unvoiced → [b, 1, t * hop]."""
        sine = SINE_AMPLITUDE * sine_wave(f0, self.sample_rate, self.hop_length)
        voiced = (f0 > 0).to(f0).repeat_interleave(self.hop_length, dim=1)
        loudness = voiced * VOICED_NOISE + (1 - voiced) * (SINE_AMPLITUDE / 3)
        source = sine * voiced + loudness * noise(sine)
        mixed: Tensor = torch.tanh(self.l_linear(source.to(self.l_linear.weight).unsqueeze(-1)))
        return mixed.transpose(1, 2)


def sine_wave(f0: Tensor, sample_rate: int, hop_length: int) -> Tensor:
    """sin of the phase that F0 (Hz, [b, t]) integrates to, float32 [b, t * hop]; the first sample is one step in.

    In turns: phase[n] = Σ_{k≤n} f0[k // hop] / rate. Whole turns are dropped at each frame in float64, so that an hour
    has the precision of a second.
    """
    step = f0.double() / sample_rate
    before = (step.cumsum(1) - step) * hop_length
    within = torch.arange(1, hop_length + 1, device=f0.device, dtype=torch.float64)
    turns = (before % 1.0).unsqueeze(-1) + step.unsqueeze(-1) * within
    return torch.sin(2 * math.pi * (turns % 1.0)).float().flatten(1)


class ResBlock(nn.Module):
    """Three pairs of dilated and plain convolutions, each added to its input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            NormedConv1d(channels, channels, kernel, dilation=d, padding=(kernel * d - d) // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(
            NormedConv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c, t] → [b, c, t]."""
        # Without gradients the same bits come from half the memory traffic, which is a quarter of the time on a CPU.
        in_place = not torch.is_grad_enabled()
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            y = dilated(F.leaky_relu(x, LRELU_SLOPE))
            y = plain(F.leaky_relu(y, LRELU_SLOPE, inplace=in_place))
            x = y.add_(x) if in_place else x + y
        return x


class Generator(nn.Module):
    """Latent [b, inter, t], speaker [b, gin, 1] and, if the voice has pitch, F0 in Hz [b, t] → wave [b, 1, t * hop]."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        rates, kernels, first = config.upsample_rates, config.upsample_kernel_sizes, config.upsample_initial_channel
        widths = [first // 2 ** (i + 1) for i in range(len(rates))]
        self.hop_length = config.hop_length
        self.per_stage = len(config.resblock_kernels)
        if config.f0:
            self.m_source = SineSource(config.sample_rate, config.hop_length)
            self.noise_convs = nn.ModuleList()
            for i, width in enumerate(widths):
                stride = math.prod(rates[i + 1 :])
                shape = (2 * stride, stride, stride // 2) if i + 1 < len(rates) else (1, 1, 0)
                self.noise_convs.append(nn.Conv1d(1, width, shape[0], stride=shape[1], padding=shape[2]))
        self.has_source = config.f0
        self.conv_pre = nn.Conv1d(config.inter_channels, first, 7, padding=3)
        self.ups = nn.ModuleList(
            NormedConvTranspose1d(first // 2**i, width, kernel, rate, padding=(kernel - rate) // 2)
            for i, (width, kernel, rate) in enumerate(zip(widths, kernels, rates, strict=True))
        )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths
            for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3, bias=False)
        self.cond = nn.Conv1d(config.gin_channels, first, 1)
        self.context_frames = _context_frames(config)

    def forward(self, z: Tensor, f0: Tensor | None, g: Tensor, noise: Noise, frames: int | None = None) -> Tensor:
        """`frames`: stretch latent and source to that many frames first (formant shift of the realtime path)."""
        source: Tensor | None = None
        if self.has_source:
            assert f0 is not None, "this voice needs F0"
            source = self.m_source(f0, noise)
        if frames is not None and frames != z.shape[2]:
            z = F.interpolate(z, size=frames, mode="linear")
            if source is not None:
                source = F.interpolate(source, size=frames * self.hop_length, mode="linear")
        return self.decode(z, source, g)

    def decode(self, z: Tensor, source: Tensor | None, g: Tensor) -> Tensor:
        """Latent [b, inter, t] and the source's [b, 1, t * hop] → wave [b, 1, t * hop]."""
        x = self.conv_pre(z) + self.cond(g)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, LRELU_SLOPE))
            if source is not None:
                x = x + self.noise_convs[i](source)
            blocks = [self.resblocks[j] for j in range(i * self.per_stage, (i + 1) * self.per_stage)]
            total = blocks[0](x)
            for block in blocks[1:]:
                total = total + block(x) if torch.is_grad_enabled() else total.add_(block(x))
            x = total / self.per_stage
        return torch.tanh(self.conv_post(F.leaky_relu(x)))


def _context_frames(config: NetworkConfig) -> int:
    """Frames on each side of a frame that its sound depends on: the reach of every layer, added up."""
    reach, per_frame = 3.0, 1
    widest = max(
        (kernel - 1) // 2 * sum(dilation + 1 for dilation in dilations)
        for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
    )
    for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        reach += kernel / rate / per_frame
        per_frame *= rate
        # a stage's source is strided over two of its steps
        reach += (widest + 2) / per_frame
    return math.ceil(reach + 3 / per_frame) + 1
