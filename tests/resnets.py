"""ResNets as published (He et al. 2015), of PyTorch's modules: random weights, running statistics as after training."""

from __future__ import annotations

import torch
from torch import nn


def convolution(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions."""

    expansion = 1

    def __init__(self, inputs, width, stride=1):
        super().__init__()
        self.conv1, self.bn1 = convolution(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, width, stride)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1; the stride is that of the 3 x 3 convolution."""

    expansion = 4

    def __init__(self, inputs, width, stride=1):
        super().__init__()
        outputs = width * self.expansion
        self.conv1, self.bn1 = convolution(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, outputs, 1), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


def shortcut(inputs, outputs, stride):
    """What the residual goes through where its shape changes, else None."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """The layers for ImageNet; `width` of the first stage."""

    def __init__(self, block, depths, width=64, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = convolution(3, width, 7, 2), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width * 2**stage, 2 if stage > 0 and index == 0 else 1))
                inputs = width * 2**stage * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18(**options):
    return settle(ResNet(BasicBlock, (2, 2, 2, 2), **options))


def resnet50(**options):
    return settle(ResNet(Bottleneck, (3, 4, 6, 3), **options))


def settle(model, seed=0):
    """The model in evaluation, its batch norms with statistics and parameters like those of a trained one.

    The running statistics are those of its own activations, but for a spread: activations stay of order one, as in a
    trained network, however deep it is.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return torch.rand(like.shape, generator=generator).to(like.dtype) * (high - low) + low

    def measure(norm, inputs):
        with torch.no_grad():
            x = inputs[0].transpose(0, 1).flatten(1)
            norm.running_mean.copy_(x.mean(1) * uniform(norm.running_mean, 0.8, 1.2))
            norm.running_var.copy_(x.var(1, correction=0) * uniform(norm.running_var, 0.7, 1.4))
            norm.weight.copy_(uniform(norm.weight, 0.2, 1.2))
            norm.bias.copy_(uniform(norm.bias, -0.5, 0.5))

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
    with torch.no_grad():
        model.eval()(torch.randn(2, 3, 64, 64, generator=generator))
    for hook in hooks:
        hook.remove()
    return model
