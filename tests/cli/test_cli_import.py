"""`threefactor import`."""

import torch
from interop.test_interop_ottt import saved


def test_a_released_network_becomes_a_run(stream, tmp_path):
    file = saved(tmp_path / "file.pth")
    code, out, _ = stream("import", "ottt-nfresnet34", file, "--out", "run")
    assert code == 0
    assert b"run holds the network; fine-tune it with: threefactor finetune run" in out
    assert (tmp_path / "run" / "last" / "state.json").exists()
    code, _, err = stream("import", "ottt-nfresnet34", file, "--out", "run")
    assert code != 0 and b"already holds a run" in err


def test_what_cannot_be_imported_is_an_error(stream, tmp_path):
    torch.save([1], tmp_path / "file.pth")
    code, _, err = stream("import", "ottt-nfresnet34", "file.pth", "--out", "run")
    assert code != 0 and b"expected a dict whose 'net'" in err
    code, _, err = stream("import", "ottt-nfresnet", "file.pth", "--out", "run")
    assert code != 0 and b"unknown kind of file 'ottt-nfresnet'; did you mean" in err
    assert not (tmp_path / "run").exists()
