"""The outputs and gradients of the models in torchvision's, Hugging Face's and PyTorch's own form, for weights that a
formula gives.

  python tools/zoo.py > tests/zoo.json                  # small configurations, part of the repository
  python tools/zoo.py --full > REFERENCE/zoo.json       # ViT-B/16, ConvNeXt-T, U-Net, DCGAN and GPT-2, some minutes

Tensor k of the state dict, counted with all others, is `fill(shape, k, bound)` of curves.py: with two or more dimensions
the bound is sqrt(3 / fan_in), fan_in = its elements / its first dimension. The weight and the running variance of a
normalization are 1 + fill(shape, k, 0.2), biases and running means fill(shape, k, 0.2); counts of batches stay zero. The input is
fill(shape, 1000, 1.732); tokens are 7i mod the vocabulary.

zoo.json: for each model, the names and shapes of its state dict, the shape of the input, and in F64 the output in
evaluation mode, and in training mode, with dropout off, the gradient norm of each parameter of the loss sum(output * fill(shape of the
output, 2000, 1)).
"""
import argparse
import json
import math

import torch
from torchvision.models import convnext, vision_transformer

from curves import fill
from models import GPT2, Discriminator, Generator, UNet

LAYERS = convnext.CNBlockConfig
GPT2_SMALL = (11, 9, 2, 3, 12)

# name -> (model, shape of the input; of tokens with the vocabulary)
SMALL = {
    "vit": (
        lambda: vision_transformer.VisionTransformer(16, 4, 2, 3, 12, 20, num_classes=5), (2, 3, 16, 16), None
    ),
    "convnext": (
        lambda: convnext.ConvNeXt([LAYERS(8, 12, 1), LAYERS(12, None, 2)], num_classes=5), (2, 3, 32, 24), None
    ),
    "unet": (lambda: UNet(2, 3, 4, 2), (2, 2, 14, 20), None),
    "dcgan-generator": (lambda: Generator(5, 1, 2), (2, 5, 1, 1), None),
    "dcgan-discriminator": (lambda: Discriminator(2, 1), (2, 2, 64, 64), None),
    "gpt2": (lambda: GPT2(*GPT2_SMALL), (2, 7), GPT2_SMALL[0]),
}
FULL = {
    "vit": (lambda: vision_transformer.vit_b_16(), (1, 3, 224, 224), None),
    "convnext": (lambda: convnext.convnext_tiny(), (1, 3, 224, 224), None),
    "unet": (lambda: UNet(), (1, 3, 64, 64), None),
    "dcgan-generator": (lambda: Generator(), (2, 100, 1, 1), None),
    "dcgan-discriminator": (lambda: Discriminator(), (2, 3, 64, 64), None),
    "gpt2": (lambda: GPT2(50257, 1024, 12, 12, 768), (1, 24), 50257),
}


def initialize(model):
    for k, (key, t) in enumerate(model.state_dict().items()):
        if t.dim() >= 2:
            t.copy_(fill(t.shape, k, math.sqrt(3 / (t.numel() / t.shape[0]))))
        elif t.is_floating_point():
            around = 1.0 if key.endswith(("weight", "running_var")) else 0.0
            t.copy_(fill(t.shape, k, 0.2) + around)


def reference(build, shape, vocab):
    model = build().double()
    for module in model.modules():
        if "StochasticDepth" in type(module).__name__:
            module.p = 0.0
    initialize(model)
    x = fill(shape, 1000, 1.732) if vocab is None else (torch.arange(math.prod(shape)) * 7 % vocab).view(shape)
    model.eval()
    with torch.no_grad():
        output = model(x)
    model.train()
    y = model(x)
    (y * fill(y.shape, 2000, 1.0)).sum().backward()
    rounded = lambda values: [float(f"{v:.10g}") for v in values]
    flat = output.flatten()
    every = max(1, flat.numel() // 200)
    return {
        "state": [[key, list(t.shape)] for key, t in model.state_dict().items()],
        "input": list(shape),
        "vocab": vocab,
        "output": list(output.shape),
        "every": every,
        "values": rounded(flat[::every].tolist()),
        "norms": {key: rounded([p.grad.norm().item()])[0] for key, p in model.named_parameters()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    result = {name: reference(*entry) for name, entry in (FULL if full else SMALL).items()}
    lines = [f'"{name}":' + json.dumps(entry, separators=(",", ":")) for name, entry in result.items()]
    print("{\n" + ",\n".join(lines) + "\n}")
