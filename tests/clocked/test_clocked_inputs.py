"""Networks with several inputs: what they take, and what is refused."""

import copy

import pytest
import torch
from reference.branch_cases import AUDIO, IMAGE, SHAPES, OneInput, make, make_inputs
from reference.clocked_cases import CASES, LOCAL_CASES, STEPS, assert_same, learned, make_rule
from reference.foreign_cases import Same, jelly
from torch import nn

from threefactor import clocked
from threefactor.clocked.inputs import shapes_of
from threefactor.errors import InputError

MERGE = "skip to the read-out"


def trained(case, train, shapes=SHAPES):
    """What a fresh rule has learned after `train(rule)`, by name."""
    rule = make_rule(case, make(MERGE), input_shape=shapes)
    result = train(rule)
    return learned(rule), result


@pytest.mark.parametrize("case", CASES)
def test_one_row_of_both_inputs_gives_the_same(case):
    image, audio, labels = make_inputs()
    ours, result = trained(case, lambda r: r.step({"image": image, "audio": audio}, labels))
    rule = make_rule(case, OneInput(make(MERGE)))
    other = rule.step(torch.cat([image.flatten(2), audio], 2), labels)
    theirs = {key.replace("branches.", ""): value for key, value in learned(rule).items()}
    assert_same(ours, theirs)
    torch.testing.assert_close(result.loss, other.loss)
    torch.testing.assert_close(result.output, other.output)


@pytest.mark.parametrize("options", LOCAL_CASES.values(), ids=LOCAL_CASES)
def test_local_learning_with_several_inputs(options):
    image, audio, labels = make_inputs()
    found = []
    for network in (make(MERGE), OneInput(make(MERGE))):
        one = isinstance(network, OneInput)
        given = dict(options)
        if given.pop("intermediate", False):
            given["intermediate"] = "branches.lif3" if one else "lif3"
        rule = make_rule("dfa", network, input_shape=None if one else SHAPES, **given)
        row = torch.cat([image.flatten(2), audio], 2)
        rule.step(row if one else {"image": image, "audio": audio}, labels)
        found.append({key.replace("branches.", ""): v for key, v in learned(rule).items()})
    assert_same(*found)


@pytest.mark.parametrize("case", ["spatial-bp", "dkp", "opzo-two-point"])
def test_every_way_to_give_the_inputs(case):
    image, audio, labels = make_inputs()
    by_name = {"audio": audio, "image": image}  # in another order than declared
    expected, result = trained(case, lambda r: r.step(by_name, labels))
    in_time = [{"image": i, "audio": a} for i, a in zip(image, audio, strict=True)]
    pairs = list(zip(image, audio, strict=True))
    ways = {
        "a tuple": (lambda r: r.step((image, audio), labels), (IMAGE, AUDIO)),
        "dicts in time": (lambda r: r.step(in_time, labels), SHAPES),
        "tuples in time": (lambda r: r.step(pairs, labels), [list(IMAGE), list(AUDIO)]),
        "a generator": (lambda r: r.step(iter(pairs), labels, steps=STEPS), (IMAGE, AUDIO)),
        "a tuple of names": (lambda r: r.step(tuple(in_time), labels), SHAPES),
        "targets for each step": (lambda r: r.step(by_name, [labels] * STEPS), SHAPES),
        "flat pictures": (
            lambda r: r.step((image.flatten(2).view(image.shape), audio), labels),
            (IMAGE, AUDIO),
        ),
    }
    for name, (train, shapes) in ways.items():
        found, other = trained(case, train, shapes)
        assert found.keys() == expected.keys() and len(found) >= 8
        assert all(torch.equal(found[k], v) for k, v in expected.items()), name
        assert torch.equal(other.output, result.output)

    def stream(rule):
        for i, a in zip(image, audio, strict=True):
            rule.observe({"image": i, "audio": a}, labels, steps=STEPS)

    assert_same(expected, trained(case, stream)[0])


@pytest.mark.parametrize("case", CASES)
def test_constant_inputs_equal_their_sequence(case):
    image, audio, labels = make_inputs()
    constant, _ = trained(case, lambda r: r.step((image[0], audio[0]), labels, steps=STEPS),
                          (IMAGE, AUDIO))  # fmt: skip
    repeated = tuple(x[0].expand(STEPS, *x[0].shape) for x in (image, audio))
    sequence, _ = trained(case, lambda r: r.step(repeated, labels), (IMAGE, AUDIO))
    assert_same(sequence, constant)


class TakesTurns(nn.Module):
    """One layer sees the left input in even steps, and the right one in odd steps."""

    input_shape = ((6,), (6,))

    def __init__(self, plan):
        super().__init__()
        self.plan, self.step = plan, 0
        self.fc, self.lif, self.readout = clocked.Linear(6, 8), clocked.LIF(), clocked.Linear(8, 3)

    def forward(self, left, right):
        x = {"l": left, "r": right, "+": left + right}[self.plan[self.step % len(self.plan)]]
        self.step += 1
        return self.readout(self.lif(self.fc(x)))


@pytest.mark.parametrize("plan", ["lr", "rl", "lrrl", "llr", "l+", "r"])
@pytest.mark.parametrize("case", ["spatial-bp", "opzo", "zo-two-point"])
def test_a_layer_that_sees_another_constant_input_notices(case, plan):
    """The shortcut for constant inputs holds for the very tensor of the first step."""
    generator = torch.Generator().manual_seed(2)
    left, right = (torch.rand(4, 6, generator=generator, dtype=torch.float64) * 3 for _ in "lr")
    labels = torch.tensor([0, 1, 2, 1])
    made = []
    points = 2 if "two-point" in case else 1
    for constant in (True, False):
        torch.manual_seed(1)
        network = TakesTurns("".join(letter * points for letter in plan)).double()
        rule = make_rule(case, network)
        network.step = 0
        if constant:
            result = rule.step((left, right), labels, steps=6)
        else:
            result = rule.step([(left.clone(), right.clone()) for _ in range(6)], labels)
        assert result.firing_rates["lif"] > 0.05
        network.step = 0
        ran = clocked.run(network, (left, right), steps=6).output if points == 1 else result.output
        made.append((learned(rule), ran))
    assert_same(made[0][0], made[1][0])
    torch.testing.assert_close(made[0][1], made[1][1])


def test_run_and_a_networks_own_shapes():
    image, audio, labels = make_inputs()
    network = make(MERGE)
    rule = clocked.DFA(network, input_shape=SHAPES)
    expected = clocked.run(network, (image, audio), input_shape=(IMAGE, AUDIO)).output
    by_name = {"image": image, "audio": audio}
    assert torch.equal(clocked.run(network, by_name, input_shape=SHAPES).output, expected)
    torch.testing.assert_close(rule.step(by_name, labels).output, expected)
    assert rule.sample_shape == {"image": torch.Size(IMAGE), "audio": torch.Size(AUDIO)}
    network.input_shape = SHAPES
    assert torch.equal(clocked.run(network, by_name).output, expected)
    assert clocked.OPZO(network).sample_shape == rule.sample_shape
    constant = clocked.run(network, {k: x[0] for k, x in by_name.items()}, steps=3)
    loop = [{k: x[0] for k, x in by_name.items()} for _ in range(3)]
    torch.testing.assert_close(constant.output, clocked.run(network, loop).output)


@pytest.mark.parametrize("several", [True, False])
def test_run_in_inference_mode(several):
    image, audio, _ = make_inputs()
    network = make(MERGE) if several else OneInput(make(MERGE))
    x = (image[0], audio[0]) if several else torch.cat([image[0].flatten(1), audio[0]], 1)
    options = {"input_shape": (IMAGE, AUDIO)} if several else {}
    expected = clocked.run(network, x, steps=3, **options).output
    with torch.inference_mode():
        assert torch.equal(clocked.run(network, x, steps=3, **options).output, expected)


def test_a_stream_of_several_inputs_survives_a_run_and_a_copy():
    image, audio, labels = make_inputs()
    steps = [{"image": i, "audio": a} for i, a in zip(image, audio, strict=True)]
    alone, visited = (make_rule("dkp", make(MERGE), input_shape=SHAPES) for _ in range(2))
    for x_t in steps:
        alone.observe(x_t, labels)
    for i, x_t in enumerate(steps):
        visited.observe(x_t, None if i == 1 else labels)
        clocked.run(visited.network, steps, input_shape=SHAPES)
        copied = copy.deepcopy(visited)
        copied.observe(x_t, labels)
    without = make_rule("dkp", make(MERGE), input_shape=SHAPES)
    for i, x_t in enumerate(steps):
        without.observe(x_t, None if i == 1 else labels)
    assert_same(learned(without), learned(visited))
    different = learned(alone)["network.mix.weight"] - learned(visited)["network.mix.weight"]
    assert different.abs().max() > 1e-6


X, Y = torch.rand(4, *IMAGE, dtype=torch.float64), torch.rand(4, *AUDIO, dtype=torch.float64)
NAN = torch.full_like(Y, torch.nan)
REFUSED = {
    "one tensor": (X, 3, r"takes 2 inputs.*is a Tensor; expected a dict with the keys"),
    "a tuple for names": ((X, Y), 3, r"a Tensor; expected a dict with the keys \['image', 'audio'"),
    "a missing name": ({"image": X}, 3, r"a dict with the keys \['image'\]; expected"),
    "a name too many": ({"image": X, "audio": Y, "text": Y}, 3, r"'text'\]; expected"),
    "a list of the inputs": ([X, Y], 6, "expected a dict.*A list is a sequence"),
    "batches that differ": ({"image": X, "audio": Y[:3]}, 3, r"inputs\['audio'\] has 3 samples"),
    "a wrong shape": ({"image": X, "audio": Y[:, :4]}, 3, r"of inputs\['audio'\] has shape \(4, 4"),
    "the inputs exchanged": ({"image": Y, "audio": X}, 3, r"of inputs\['image'\] has shape \(4, 5"),
    "another precision": ({"image": X, "audio": Y.float()}, 3, r"\['audio'\] is torch.float32"),
    "whole numbers": ({"image": X.long(), "audio": Y}, 3, r"inputs\['image'\] is torch.int64"),
    "a value that is none": ({"image": X, "audio": NAN}, 3, r"inputs\['audio'\] holds 20 NaN"),
    "an array": ({"image": X.numpy(), "audio": Y}, 3, r"inputs\['image'\] is a ndarray"),
    "no steps": ({"image": X, "audio": Y}, None, r"inputs\['image'\] of shape .* without steps"),
    "constant and sequence": (
        {"image": X.expand(3, *X.shape), "audio": Y}, None, "all constant or all sequences",
    ),
    "sequence and steps": (
        {"image": X.expand(3, *X.shape), "audio": Y}, 3, "all inputs of one call are of one kind",
    ),
    "lengths that differ": (
        {"image": X.expand(3, *X.shape), "audio": Y.expand(2, *Y.shape)}, None,
        r"different numbers of time steps, .*'image'\]\": 3",
    ),
    "no time step": (
        {"image": X.expand(0, *X.shape), "audio": Y.expand(0, *Y.shape)}, None, "no time step",
    ),
    "a bad step of many": (
        [{"image": X, "audio": Y}, {"image": X, "audio": NAN}], None, "holds 20 NaN",
    ),
    "batches that change": (
        [{"image": X, "audio": Y}, {"image": X[:2], "audio": Y[:2]}], None, "2 samples follow",
    ),
    "an end too early": (iter([{"image": X, "audio": Y}]), 2, "ended after 1 time steps"),
    "a number": (3, 2, "is a int; expected a dict"),
    "words": ("image", 2, "is a str; expected a dict"),
}  # fmt: skip


@pytest.mark.parametrize("which", REFUSED)
def test_what_is_refused_leaves_nothing(which):
    inputs, steps, message = REFUSED[which]
    rule = make_rule("opzo", make(MERGE), input_shape=SHAPES)
    before = copy.deepcopy(rule.state_dict())
    labels = torch.tensor([0, 1, 2, 0])
    with pytest.raises(InputError, match=message):
        rule.step(inputs, labels, steps=steps)
    assert all(p.grad is None for p in rule.network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in rule.state_dict().items())
    assert rule.network.lif1.state is None
    if not hasattr(inputs, "__next__"):
        with pytest.raises(InputError, match=message):
            clocked.run(rule.network, inputs, steps=steps, input_shape=SHAPES)


def test_bad_steps_of_a_stream():
    rule = make_rule("dfa", make(MERGE), input_shape=SHAPES)
    labels = torch.tensor([0, 1, 2, 0])
    rule.observe({"image": X, "audio": Y}, labels)
    for bad, message in (
        ((X, Y), "a tuple; expected a dict"),
        ({"image": X, "audio": NAN}, "holds 20 NaN"),
        ({"image": X[:2], "audio": Y[:2]}, "targets have shape|2 samples follow"),
        ([{"image": X, "audio": Y}], "a list of 1|is a list; expected a dict"),
    ):
        with pytest.raises(InputError, match=message):
            rule.observe(bad, labels)
    rule.observe({"image": X, "audio": Y}, labels)  # the stream goes on


class Changes(nn.Module):
    """Writes to one of its inputs."""

    input_shape = ((5,), (5,))

    def __init__(self):
        super().__init__()
        self.fc = clocked.Linear(5, 3)

    def forward(self, a, b):
        b.mul_(2.0)
        return self.fc(a + b)


def test_an_input_that_the_network_changes_is_noticed():
    network = Changes().double()
    with pytest.raises(InputError, match="changes its input in place"):
        clocked.run(network, (Y, Y.clone()), steps=2)


def test_a_constant_input_that_is_changed_between_steps_is_noticed():
    network = make(MERGE)
    kept = []
    network.fc.register_forward_pre_hook(lambda m, given: kept.append(given[0]))
    rule = clocked.DFA(network, input_shape=SHAPES)
    labels = torch.tensor([0, 1, 2, 0])
    with pytest.raises(InputError, match="changed in place between two time steps"):
        rule.step({"image": X, "audio": Y}, labels, steps=3,
                  after_step=lambda: kept[-1].mul_(2.0))  # fmt: skip


def test_inputs_with_a_graph():
    rule = make_rule("dfa", make(MERGE), input_shape=SHAPES)
    encoder = nn.Linear(5, 5).double()
    labels = torch.tensor([0, 1, 2, 0])
    with pytest.raises(InputError, match="come with the graph"):
        rule.step({"image": X, "audio": encoder(Y)}, labels, steps=3)
    rule = make_rule("spatial-bp", make(MERGE), input_shape=SHAPES)
    with pytest.raises(InputError, match=r"constant inputs\['audio'\] comes with the graph"):
        rule.step({"image": X, "audio": encoder(Y)}, labels, steps=3)
    rule.step([{"image": X, "audio": encoder(Y)} for _ in range(2)], labels)
    assert encoder.weight.grad.abs().max() > 0


class TakesADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = clocked.Linear(5, 3)

    def forward(self, batch):
        return self.fc(batch["audio"])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5,), (5,), (5,)), "does not take the 3 inputs that input_shape declares by position"),
        ({"image": IMAGE, "sound": AUDIO}, r"by name, \(image, sound\): missing .*'audio'"),
        ((IMAGE, 40), "give the shape of one sample"),
        ({"image": 5}, "give the shape of one sample"),
        ({}, "give a shape for each input"),
        ({1: IMAGE}, "give a shape for each input"),
        ("wide", "give the shape of one sample"),
        (5, "give the shape of one sample"),
    ],
)
def test_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(InputError, match=message):
        clocked.DFA(make(MERGE), input_shape=shapes)


def test_what_takes_one_dict_needs_a_forward_around_it():
    with pytest.raises(InputError, match="a forward that takes one tuple or dict needs a forward"):
        clocked.DFA(TakesADict(), input_shape={"audio": (5,)})


def test_several_inputs_that_nobody_declared():
    with pytest.raises(InputError, match=r"takes several inputs, \(image, audio\)"):
        clocked.run(make(MERGE), (X, Y), steps=2)
    with pytest.raises(InputError, match=r"takes several inputs, \(image, audio\)"):
        clocked.DFA(make(MERGE))
    plain = clocked.fc(5, (4,), 3).double()
    with pytest.raises(InputError, match="are a dict, and the network takes one tensor"):
        clocked.run(plain, {"audio": Y}, steps=2)
    # without a declaration, a tuple stays a sequence over time
    both = clocked.run(plain, (Y, Y + 1.0)).output
    assert torch.equal(both, clocked.run(plain, torch.stack([Y, Y + 1.0])).output)


def test_one_input_in_a_tuple_or_dict():
    plain = clocked.fc(5, (4,), 3).double()
    expected = clocked.run(plain, Y, steps=3).output
    assert torch.equal(clocked.run(plain, (Y,), steps=3, input_shape=((5,),)).output, expected)
    named = clocked.run(plain, {"x_t": Y}, steps=3, input_shape={"x_t": (5,)}).output
    assert torch.equal(named, expected)
    assert shapes_of(plain, None) == torch.Size((5,))


@pytest.mark.parametrize("case", ["spatial-bp", "dfa", "dkp", "zo-two-point", "opzo"])
@pytest.mark.parametrize("make_neuron", [Same, jelly])
def test_several_inputs_of_a_network_of_other_layers(make_neuron, case):
    image, audio, labels = make_inputs()
    ours, theirs = make(MERGE), make(MERGE)
    for name, layer in list(theirs.named_children()):
        if isinstance(layer, clocked.LIF):
            setattr(theirs, name, make_neuron())
            continue
        plain = (
            nn.Conv2d(1, 2, 3, padding=1)
            if name == "conv"
            else nn.Linear(*layer.weight.shape[::-1])
        )
        plain.double().load_state_dict(layer.state_dict())
        setattr(theirs, name, plain)
    found = []
    for network in (ours, theirs):
        rule = make_rule(case, network, input_shape=(IMAGE, AUDIO))
        rule.step((image, audio), labels)
        result = rule.step((image[0], audio[0]), labels, steps=4)
        assert all(rate > 0.02 for rate in result.firing_rates.values())
        found.append((learned(rule), result.output))
    assert_same(found[0][0], found[1][0])
    torch.testing.assert_close(*(output for _, output in found))
