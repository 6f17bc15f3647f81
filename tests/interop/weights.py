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
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn


class LeNet5(nn.Module):
    shape = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Block(nn.Module):
    def __init__(self, channels, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or channels != planes:
            shortcut = nn.Conv2d(channels, planes, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(planes))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + identity)


class ResNet18(nn.Module):
    shape = (3, 32, 32)

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        channels = 64
        for number, (planes, stride) in enumerate([(64, 1), (128, 2), (256, 2), (512, 2)], 1):
            layer = nn.Sequential(Block(channels, planes, stride), Block(planes, planes, 1))
            setattr(self, f"layer{number}", layer)
            channels = planes
        self.fc = nn.Linear(512, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


MODELS = {"lenet5": LeNet5, "resnet18": ResNet18}


@torch.no_grad()
def write(folder):
    torch.manual_seed(0)
    for name, build in MODELS.items():
        model = build()
        # A pass in training moves the running statistics away from their start.
        model.train()(torch.randn(8, *build.shape))
        x = torch.randn(4, *build.shape)
        save_file(model.state_dict(), folder / f"{name}.torch.safetensors")
        torch.save(model.state_dict(), folder / f"{name}.torch.pt")
        torch.save(model.state_dict(), folder / f"{name}.legacy.pt", _use_new_zipfile_serialization=False)
        save_file({"input": x, "logits": model.eval()(x)}, folder / f"{name}.torch.logits.safetensors")


@torch.no_grad()
def check(folder):
    for name, build in MODELS.items():
        model = build()
        state = load_file(folder / f"{name}.tapegrad.safetensors")
        ours = torch.load(folder / f"{name}.tapegrad.pt", weights_only=True)
        assert state.keys() == ours.keys() and all(torch.equal(state[k], ours[k]) for k in state)
        assert all(state[k].dtype == ours[k].dtype and ours[k].is_contiguous() for k in state)
        model.load_state_dict(ours, strict=True)
        pair = load_file(folder / f"{name}.tapegrad.logits.safetensors")
        off = (model.eval()(pair["input"]) - pair["logits"]).abs().max().item()
        print(f"{name}: logits differ by {off:.2e} at most")
        assert off < 1e-4


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
