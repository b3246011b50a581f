"""One 1024-px image on the CPU: our generator against the literal grouped-convolution form.

The literal form is the textbook one: a weight of its own for every sample, grouped convolutions,
zero insertion and a filter for every upsampling. Both run in processes of their own, on the same
weights and codes, so that peak memory is comparable.
"""

import math
import multiprocessing
import resource
import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from pipeline.models.stylegan2 import Generator
from pipeline.models.stylegan2_layers import fir_kernel

SIZE = 1024
ROUNDS = 3


def filtered(x, kernel, up, pad):
    """Zero insertion by `up`, padding, depthwise filter."""
    n, c, h, w = x.shape
    if up > 1:
        grid = x.new_zeros(n, c, h, up, w, up)
        grid[:, :, :, 0, :, 0] = x
        x = grid.view(n, c, h * up, w * up)
    x = F.pad(x, (pad[0], pad[1], pad[0], pad[1]))
    x = F.conv2d(x.reshape(n * c, 1, *x.shape[2:]), kernel.flip(0, 1)[None, None])
    return x.view(n, c, *x.shape[2:])


def literal_conv(layer, x, style, *, up=False):
    """Per-sample weights, one group a sample."""
    n, channels, height, width = x.shape
    _, out, _, k, _ = layer.weight.shape
    weight = layer.weight / math.sqrt(channels * k * k) * style[:, None, :, None, None]
    if layer.demodulate:
        weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, n * channels, height, width)
    if up:
        weight = weight.transpose(1, 2).reshape(n * channels, out, k, k)
        x = F.conv_transpose2d(x, weight, stride=2, groups=n)
        x = x.view(n, out, *x.shape[2:])
        return filtered(x, layer.blur.kernel, 1, (1, 1))
    x = F.conv2d(x, weight.reshape(n * out, channels, k, k), padding=k // 2, groups=n)
    return x.view(n, out, *x.shape[2:])


def literal_image(generator, s, w_plus):
    """The image as the published layers compute it."""
    styles = generator.layout.split(s)
    noises = list(generator.noises.buffers())
    x = generator.input["input"].repeat(s.shape[0], 1, 1, 1)
    image = None
    for index, conv in enumerate(generator.styled_convs):
        x = literal_conv(conv.conv, x, styles[index], up=index % 2 == 1)
        x = x + conv.noise.weight * noises[index]
        x = F.leaky_relu(x + conv.activate.bias[:, None, None], 0.2) * math.sqrt(2)
        if index % 2 == 0:
            rgb = generator.rgb_layers[index // 2]
            style = rgb.conv.modulation(w_plus[:, index + 1])
            part = literal_conv(rgb.conv, x, style) + rgb.bias
            skip = 0 if image is None else filtered(image, fir_kernel(), 2, (2, 1))
            image = part + skip
    return image


def render(form, size, rounds, pipe):
    """CPU seconds of each image, and the growth of peak memory in bytes over the loaded model."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = Generator(size).eval().requires_grad_(requires_grad=False)
    w_plus = generator.broadcast(generator.map(torch.randn(1, 512)))
    s = generator.to_s(w_plus)
    call = literal_image if form == "literal" else Generator.synthesize
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(rounds):
        start = time.process_time()
        image = call(generator, s, w_plus)
        times.append(time.process_time() - start)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    pipe.send((times, peak, image[:, :, ::32, ::32].clone()))


def measured(form, size=SIZE, rounds=ROUNDS):
    """`render` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=render, args=(form, size, rounds, theirs))
    process.start()
    times, peak, image = ours.recv()
    process.join()
    return statistics.median(times), peak, image


@pytest.mark.bench
@pytest.mark.timeout(1200)
def test_one_image_takes_no_more_time_and_less_memory_than_the_literal_form(table):
    time_ours, peak_ours, image_ours = measured("ours")
    time_literal, peak_literal, image_literal = measured("literal")
    torch.testing.assert_close(image_ours, image_literal, rtol=1e-3, atol=1e-3)
    against = f"literal grouped convolutions ({time_literal:.2f} s, {peak_literal / 1e6:.0f} MB)"
    what = f"one {SIZE}-px image of the generator"
    table.at_most(f"{what}, CPU time", time_ours / time_literal, 1, against=against)
    table.at_most(f"{what}, peak memory", peak_ours / peak_literal, 1, against=against)
