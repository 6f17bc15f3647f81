"""Weights exchanged with PyTorch, both ways.

  python tests/interop/weights.py write DIR            (needs: pip install -r tools/requirements.txt)
  TAPEGRAD_INTEROP=DIR cargo test --release --test interop
  python tests/interop/weights.py check DIR

`write` saves the weights of PyTorch's models with an input and its logits; the test loads them, compares the
logits, and saves weights of its own with their logits; `check` loads those into PyTorch's models. Both ways as
safetensors and as PyTorch's own files.
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, load_model, save_file, save_model

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from models import GPT, GPT2, LeNet5, MobileNetV2, ResNet18, ResNet50


GPT_SIZES = (50, 16, 2, 2, 128)


def tied_gpt():
    """A language model whose head has the weight of the token embeddings."""
    model = GPT(*GPT_SIZES)
    model.lm_head.weight = model.wte.weight
    return model


class GPT2WithHead(torch.nn.Module):
    """GPT-2 with its head, with the names of its published weights."""

    def __init__(self):
        super().__init__()
        self.transformer = GPT2(*GPT_SIZES)
        self.lm_head = torch.nn.Linear(GPT_SIZES[-1], GPT_SIZES[0], bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, tokens):
        return self.transformer(tokens).flatten(0, 1)


# name -> (constructor, input shape without the batch)
MODELS = {
    "lenet5": (LeNet5, (1, 28, 28)),
    "resnet18": (ResNet18, (3, 32, 32)),
    "resnet50": (ResNet50, (3, 224, 224)),
    "mobilenetv2": (MobileNetV2, (3, 224, 224)),
}


@torch.no_grad()
def write(folder):
    torch.manual_seed(0)
    for name, (build, shape) in MODELS.items():
        model = build()
        # A pass in training moves the running statistics away from their start.
        model.train()(torch.randn(8, *shape))
        x = torch.randn(4, *shape)
        save_file(model.state_dict(), folder / f"{name}.torch.safetensors")
        torch.save(model.state_dict(), folder / f"{name}.torch.pt")
        torch.save(model.state_dict(), folder / f"{name}.legacy.pt", _use_new_zipfile_serialization=False)
        save_file({"input": x, "logits": model.eval()(x)}, folder / f"{name}.torch.logits.safetensors")

    for name, model in (("gpt", tied_gpt()), ("gpt2", GPT2WithHead())):
        for p in model.parameters():
            p.normal_(0, 0.1)
        tokens = torch.randint(GPT_SIZES[0], (2, 10))
        # The first writes the weight of two names once, under one of them.
        save_model(model, str(folder / f"{name}.torch.safetensors"))
        torch.save(model.state_dict(), folder / f"{name}.torch.pt")
        pair = {"input": tokens, "logits": model.eval()(tokens)}
        save_file(pair, folder / f"{name}.torch.logits.safetensors")


@torch.no_grad()
def check(folder):
    pair = load_file(folder / "gpt.tapegrad.logits.safetensors")
    ours = torch.load(folder / "gpt.tapegrad.pt", weights_only=True)
    assert ours["wte.weight"].data_ptr() == ours["lm_head.weight"].data_ptr()
    first, second = tied_gpt(), tied_gpt()
    load_model(first, folder / "gpt.tapegrad.safetensors")
    second.load_state_dict(ours, strict=True)
    for model in (first, second):
        report("gpt", model, pair)
    for name, (build, _) in MODELS.items():
        model = build()
        state = load_file(folder / f"{name}.tapegrad.safetensors")
        ours = torch.load(folder / f"{name}.tapegrad.pt", weights_only=True)
        assert state.keys() == ours.keys() and all(torch.equal(state[k], ours[k]) for k in state)
        assert all(state[k].dtype == ours[k].dtype and ours[k].is_contiguous() for k in state)
        model.load_state_dict(ours, strict=True)
        pair = load_file(folder / f"{name}.tapegrad.logits.safetensors")
        report(name, model, pair)


def report(name, model, pair):
    logits = model.eval()(pair["input"])
    off = ((logits - pair["logits"]).abs().max() / logits.abs().max()).item()
    print(f"{name}: logits differ by {off:.2e} of the largest at most")
    assert off < 1e-4


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
