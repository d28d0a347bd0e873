"""Event-driven networks in the shared training loop."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch

from threefactor import data, events, training
from threefactor.errors import ConfigurationError, InputError
from threefactor.recipes import recipe
from threefactor.training.settings import make_settings


def test_the_trainer_does_what_a_plain_loop_does(small_events):
    settings = small_events("sfdfa", epochs=2)
    trainer = training.Trainer(training.build(settings))
    trainer.fit()

    digits = data.load_spikes("digits", window=0.1).subset(100, 40)
    torch.manual_seed(0)
    net = events.fc(
        64, (24, 16), 10, tau_s=0.130, thresholds=(0.1, 0.05, 0.05), duration=0.2, max_spikes=30
    )
    rule = events.SFDFA(net, rate_penalty=0.1, rate_target=0.2)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3, fused=True)
    x, y = digits.train
    for epoch in range(2):
        order = torch.randperm(100, generator=torch.Generator().manual_seed(epoch))
        for index in torch.split(order, 16):
            optimizer.zero_grad()
            rule.step(x[index], y[index])
            optimizer.step()
    for mine, theirs in zip(net.parameters(), trainer.experiment.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    counts = torch.from_numpy(net(digits.test_spikes).counts())
    assert counts.sum() > 0
    right = (counts.argmax(1) == digits.test_labels).double().mean()
    assert trainer.evaluate().accuracy == pytest.approx(float(right))


def test_training_learns(small_events):
    changes = {"hidden": [100], "thresholds": [0.1, 0.3], "epochs": 12, "data.train": 800}
    for rule, least in (("exact-bp", 0.8), ("sfdfa", 0.8), ("dfa", 0.6)):
        history = training.Trainer(training.build(small_events(rule, **changes))).fit()
        assert history[-1]["train_accuracy"] > least, rule
        assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_metrics_tell_how_often_the_cap_was_hit(small_events):
    changes = {"max_spikes": 1, "rate_penalty": 0.0, "epochs": 1}
    line = training.Trainer(training.build(small_events(**changes))).fit()[-1]
    assert line["capped"]["lif1"] > 0
    assert set(line["capped"]) == {"lif1", "lif2", "readout"}
    assert 0 < line["firing_rates"]["lif1"] <= 1.0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("mnist-events", {"steps": 6}, "give steps=None"),
        ("mnist-events", {"update": "step"}, 'update="sequence"'),
        ("mnist-fc", {"steps": None}, "give the number of time steps"),
        ("mnist-fc", {"loss": {"kind": "spike-count"}}, "give 'cross-entropy'"),
        ("mnist-events", {"loss": {"kind": "spikecount"}}, "spikecount"),
        ("mnist-events", {"tau_s": 0.0}, "network.tau_s = 0.0"),
        ("mnist-events", {"max_spikes": 0}, "network.max_spikes = 0"),
        ("mnist-events", {"window": 0}, "data.window = 0"),
        ("mnist-events", {"feedback_l": 1}, "did you mean 'feedback_lr'"),
        ("mnist-events", {"leak": 0.5}, "unknown setting 'leak'"),
    ],
)
def test_settings_that_do_not_fit_the_engine_are_named(name, changes, message):
    with pytest.raises(ConfigurationError) as caught:
        recipe(name).settings_for(None, changes)
    assert message in str(caught.value)


def test_settings_that_recorded_spikes_make_no_use_of_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "shd-like").mkdir()
    for part in ("train", "test"):
        with h5py.File(tmp_path / "shd-like" / f"{part}.h5", "w") as file:
            for name, kind in (("times", "f8"), ("units", "i8")):
                rows = file.create_dataset(f"spikes/{name}", 20, h5py.vlen_dtype(np.dtype(kind)))
                for n in range(20):
                    rows[n] = np.arange(2)
            file["labels"] = np.arange(20)
    for changes in ({"window": 0.3}, {"sort": True}):
        settings = recipe("shd-like-events").settings_for(None, {"hidden": [2], **changes})
        (key,) = changes
        with pytest.raises(ConfigurationError, match=rf"data\.{key} is .* makes no use; leave"):
            training.build(settings, tmp_path)
    assert training.build(recipe("shd-like-events").settings_for(None, {"hidden": [2]}), tmp_path)


def test_spikes_that_come_too_late_to_be_seen_are_told(small_events):
    settings = small_events(**{"data.window": 0.5})
    pixels = data.load("digits", normalise=False).train_images[: settings.data.train]
    share = float((pixels[pixels > 0] <= 0.6).double().mean())  # 0.5 s * (1 - p) >= 0.2 s
    message = rf"{share:.0%} of the spikes .* 0\.2 s or later, .* at 0\.46875 s"
    with pytest.warns(UserWarning, match=message):
        training.Trainer(training.build(settings))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.Trainer(training.build(small_events(**{"data.window": 0.2})))


def test_the_rule_of_the_other_engine_is_unknown():
    with pytest.raises(ConfigurationError, match=r"unknown rule 'opzo'.*Known: dfa, exact-bp"):
        recipe("mnist-events").settings_for("opzo")
    with pytest.raises(ConfigurationError, match=r"unknown rule 'sfdfa'"):
        recipe("mnist-fc").settings_for("sfdfa")


def test_a_wrong_number_of_thresholds_is_refused(small_events):
    with pytest.raises(InputError, match="give one per layer"):
        training.build(small_events(thresholds=[0.1, 0.2, 0.3, 0.4]))


def test_a_bad_option_value_names_the_rule(small_events):
    with pytest.raises(ConfigurationError, match="local gradient 'exakt'; did you mean 'exact'"):
        training.build(small_events(local_gradient="exakt"))


@pytest.mark.parametrize("name", ["mnist-fc", "mnist-events", "yin-yang-events"])
def test_settings_survive_a_round_trip(name):
    settings = recipe(name).settings_for()
    assert make_settings(dataclasses.asdict(settings)) == settings


def test_runs_from_before_losses_had_kinds_can_be_read():
    values = dataclasses.asdict(recipe("mnist-fc").settings_for())
    del values["loss"]["kind"], values["data"]["window"]
    assert make_settings(values) == recipe("mnist-fc").settings_for()


def test_another_device_is_refused(small_events):
    with pytest.raises(ConfigurationError, match="run on the CPU"):
        training.build(small_events(), device="meta")


def test_a_run_from_before_losses_had_kinds_is_the_same_run(tmp_path):
    settings = recipe("digits-fc").settings_for("opzo")
    folder = training.RunFolder(tmp_path / "run")
    folder.create(settings)
    document = folder.read().config
    del document["settings"]["loss"]["kind"], document["settings"]["data"]["window"]
    folder.config_path.write_text(json.dumps(document))
    folder.read().check_settings(settings)
