"""The same training step in the other libraries that are installed."""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[], object]


def peers(x: Tensor, y: Tensor, steps: int) -> dict[str, Step]:
    """Return a training step of each installed peer, by name; say which are absent."""
    found: dict[str, Step] = {}
    for module, build in (("spikingjelly", spikingjelly), ("snntorch", snntorch)):
        if importlib.util.find_spec(module) is None:
            print(f"{module} is not installed: left out (see benchmarks/README.md)")
        else:
            found.update(build(x, y, steps))
    return found


def step_loss(output: Tensor, y: Tensor, one_hot: Tensor, steps: int) -> Tensor:
    """The instantaneous loss of OTTT: cross entropy with 5 % of squared error."""
    return (0.95 * F.cross_entropy(output, y) + 0.05 * F.mse_loss(output, one_hot)) / steps


def optimizer_for(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=2e-4, weight_decay=2e-4, fused=True)


def spikingjelly(x: Tensor, y: Tensor, steps: int) -> dict[str, Step]:
    """BPTT in multi-step mode (its fastest on a CPU) and OTTT."""
    stand_in_for_torchvision()
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    one_hot = F.one_hot(y, 10).float()
    surrogate_function = surrogate.Sigmoid(alpha=4.0)

    def bptt() -> Step:
        def node() -> nn.Module:
            return neuron.LIFNode(
                tau=2.0,
                decay_input=False,
                v_threshold=1.0,
                v_reset=None,
                surrogate_function=surrogate_function,
                detach_reset=True,
            )

        net = nn.Sequential(
            *(layer.Linear(784, 800), node(), layer.Dropout(0.2)),
            *(layer.Linear(800, 800), node(), layer.Dropout(0.2)),
            layer.Linear(800, 10),
        )
        functional.set_step_mode(net, "m")
        optimizer = optimizer_for(net)

        def step() -> None:
            optimizer.zero_grad()
            outputs = net(x.expand(steps, *x.shape))
            sum(step_loss(o, y, one_hot, steps) for o in outputs).backward()
            optimizer.step()
            functional.reset_net(net)

        return step

    def ottt() -> Step:
        def node() -> nn.Module:
            return neuron.OTTTLIFNode(
                tau=2.0,
                decay_input=False,
                v_threshold=1.0,
                v_reset=None,
                surrogate_function=surrogate_function,
                detach_reset=True,
                step_mode="s",
            )

        net = layer.OTTTSequential(
            *(nn.Linear(784, 800), node(), layer.Dropout(0.2)),
            *(nn.Linear(800, 800), node(), layer.Dropout(0.2)),
            nn.Linear(800, 10),
        )
        optimizer = optimizer_for(net)

        def step() -> None:
            optimizer.zero_grad()
            for _ in range(steps):
                step_loss(net(x), y, one_hot, steps).backward()
            optimizer.step()
            functional.reset_net(net)

        return step

    return {"SpikingJelly BPTT": bptt(), "SpikingJelly OTTT": ottt()}


class Scale(nn.Module):
    """The factor of a spiking layer's activity, as in SpikingJelly's model of OTTT."""

    def forward(self, x: Tensor) -> Tensor:
        return 2.74 * x


def spikingjelly_conv(x: Tensor, y: Tensor, steps: int, width: float) -> dict[str, Step]:
    """OTTT of conv5: 128C3-AP2-256C3-AP2-512C3-AP2-512C3-FC, its channels times `width`."""
    if importlib.util.find_spec("spikingjelly") is None:
        print("spikingjelly is not installed: left out (see benchmarks/README.md)")
        return {}
    stand_in_for_torchvision()
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    one_hot = F.one_hot(y, 10).float()
    channels, side = x.shape[1], x.shape[2] // 8
    layers: list[nn.Module] = []
    for i, wanted in enumerate((128, 256, 512, 512)):
        if i:
            layers.append(layer.AvgPool2d(2, 2))
        given, channels = channels, round(wanted * width)
        layers.append(layer.WSConv2d(given, channels, 3, padding=1))
        layers.append(
            neuron.OTTTLIFNode(
                tau=2.0,
                decay_input=False,
                v_threshold=1.0,
                v_reset=None,
                surrogate_function=surrogate.Sigmoid(alpha=4.0),
                detach_reset=True,
                step_mode="s",
            )
        )
        layers.append(Scale())
    net = layer.OTTTSequential(*layers, layer.Flatten(1), nn.Linear(channels * side**2, 10))
    optimizer = optimizer_for(net)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(steps):
            step_loss(net(x), y, one_hot, steps).backward()
        optimizer.step()
        functional.reset_net(net)

    return {"SpikingJelly OTTT": step}


def snntorch(x: Tensor, y: Tensor, steps: int) -> dict[str, Step]:
    """BPTT, one time step after the other."""
    import snntorch as snn
    from snntorch import surrogate

    one_hot = F.one_hot(y, 10).float()

    def neuron() -> nn.Module:
        return snn.Leaky(beta=0.5, spike_grad=surrogate.sigmoid(slope=4), init_hidden=False)

    layers = nn.ModuleList([nn.Linear(784, 800), nn.Linear(800, 800), nn.Linear(800, 10)])
    neurons: Sequence[nn.Module] = [neuron(), neuron()]
    optimizer = optimizer_for(layers)
    keep = 0.8

    def step() -> None:
        optimizer.zero_grad()
        potentials = [n.init_leaky() for n in neurons]
        masks = [torch.rand(len(x), 800).ge_(1 - keep).div_(keep) for _ in neurons]
        loss = x.new_zeros(())
        for _ in range(steps):
            activity = x
            for i, n in enumerate(neurons):
                spikes, potentials[i] = n(layers[i](activity), potentials[i])
                activity = spikes * masks[i]
            loss = loss + step_loss(layers[-1](activity), y, one_hot, steps)
        loss.backward()
        optimizer.step()

    return {"snnTorch BPTT": step}


def stand_in_for_torchvision() -> None:
    """SpikingJelly imports torchvision for its data sets, which nothing here uses."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms")
    for name in (*names, "torchvision.datasets.utils", "torchvision.utils"):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
