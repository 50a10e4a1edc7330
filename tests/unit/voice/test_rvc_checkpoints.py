"""Training starts from RVC's checkpoints and bases exactly, and leaves files from which RVC goes on."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.rvc.checkpoints import (
    Started,
    checkpoint_of,
    optimizer_state,
    read_training_checkpoint,
    start_from,
    write_training_checkpoint,
)
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.safe_load import load_tensors
from tests.unit.voice.rvc_fixtures import FIXTURES, config_of, needs_fixtures, read_json
from tests.unit.voice.voice_files import TINY, discriminator, parametrised, rvc_voice, tiny_network, training_file


def adamw(module: torch.nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(module.parameters(), lr=1e-4, betas=(0.8, 0.99), eps=1e-9)


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_of_rvc_is_read_whole(tmp_path: Path) -> None:
    network = tiny_network()

    held = read_training_checkpoint(training_file(tmp_path / "G_40.pth", network, epoch=7), wanted="generator")

    assert (held.kind, held.epoch, held.learning_rate, held.scaler) == ("generator", 7, 1e-4, None)
    assert equal(held.model, dict(network.state_dict()))
    assert held.optimizer is not None
    assert len(held.optimizer["state"]) == len(list(network.parameters()))


def test_a_base_with_its_model_alone_is_read(tmp_path: Path) -> None:
    torch.save({"model": discriminator().state_dict()}, tmp_path / "f0D40k.pth")

    held = read_training_checkpoint(tmp_path / "f0D40k.pth", wanted="discriminator")

    assert (held.kind, held.epoch, held.optimizer, held.learning_rate) == ("discriminator", None, None, None)


def test_what_is_written_is_in_rvcs_layout_and_comes_back(tmp_path: Path) -> None:
    network = tiny_network()
    source = read_training_checkpoint(training_file(tmp_path / "G_40.pth", network))

    for scaler in (None, {"scale": 65536.0}):
        write_training_checkpoint(
            tmp_path / "G_80.pth",
            network.state_dict(),
            epoch=8,
            learning_rate=1e-4,
            optimizer=source.optimizer,
            scaler=scaler,
        )

        file, held = load_tensors(tmp_path / "G_80.pth"), read_training_checkpoint(tmp_path / "G_80.pth")
        assert list(file) == ["model", "iteration", "optimizer", "learning_rate"] + (["scaler"] if scaler else [])
        assert (file["iteration"], file["learning_rate"]) == (8, 1e-4)
        assert all(value.dtype == torch.float32 for value in file["model"].values())
        assert equal(held.model, dict(network.state_dict()))
        adamw(tiny_network()).load_state_dict(file["optimizer"])
        assert held.scaler == scaler


def test_a_half_written_checkpoint_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RVC's names"):
        write_training_checkpoint(tmp_path / "G_1.pth", {}, epoch=1, learning_rate=1e-4)
    newer = parametrised(tiny_network().state_dict())
    with pytest.raises(ValueError, match="RVC's names"):
        write_training_checkpoint(tmp_path / "G_1.pth", newer, epoch=1, learning_rate=1e-4)

    assert list(tmp_path.iterdir()) == []


def test_training_starts_with_the_weights_of_the_base(tmp_path: Path) -> None:
    base, network = tiny_network(1), tiny_network(2)
    torch.save({"model": parametrised(base.state_dict())}, tmp_path / "base.pth")

    started = start_from(network, read_training_checkpoint(tmp_path / "base.pth"), "base.pth")

    assert started == Started(taken=4, new=0)
    assert equal(dict(network.state_dict()), dict(base.state_dict()))


@pytest.mark.parametrize(("rows", "own", "expected"), [(109, 4, Started(4, 0)), (1, 4, Started(1, 3))])
def test_only_the_speaker_table_may_have_other_rows(rows: int, own: int, expected: Started) -> None:
    base = tiny_network(1, replace(TINY, speakers=rows))
    network = tiny_network(2, replace(TINY, speakers=own))
    drawn = network.emb_g.weight.detach().clone()

    started = start_from(network, checkpoint_of({"model": base.state_dict()}, "x"), "x")

    assert started == expected
    assert torch.equal(network.emb_g.weight[: expected.taken], base.emb_g.weight[: expected.taken])
    assert torch.equal(network.emb_g.weight[expected.taken :], drawn[expected.taken :])


def test_a_base_that_does_not_fit_is_refused_with_all_differences_and_changes_nothing() -> None:
    network = tiny_network(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = dict(tiny_network(1).state_dict())
    lacking = {name: value for name, value in state.items() if not name.startswith("dec.conv_pre")}
    wrong = {**state, "dec.cond.bias": torch.zeros(3), "stray": torch.zeros(1)}
    other = tiny_network(1, replace(TINY, version="v1")).state_dict()
    speakers = {**state, "emb_g.weight": torch.zeros(4, 3)}
    broken = {**state, "dec.cond.bias": torch.full((32,), float("nan"))}

    for model, reason in (
        (lacking, r"it lacks dec\.conv_pre\.weight, dec\.conv_pre\.bias"),
        (wrong, r"no place for stray; dec\.cond\.bias has shape \[3\] and needs \[32\]"),
        (other, r"enc_p\.emb_phone\.weight has shape \[16, 256\] and needs \[16, 768\]"),
        (speakers, r"emb_g\.weight has shape \[4, 3\] and needs \[4, 8\]"),
        (broken, "not finite"),
    ):
        with pytest.raises(ModelFileRefused, match=reason):
            start_from(network, checkpoint_of({"model": model}, "base.pth"), "base.pth")
        assert equal(dict(network.state_dict()), before)


def test_the_wrong_one_of_a_pair_is_refused_by_name(tmp_path: Path) -> None:
    training_file(tmp_path / "G_1.pth")
    training_file(tmp_path / "D_1.pth", discriminator())

    with pytest.raises(ModelFileRefused, match="is a discriminator; give the G_ file"):
        read_training_checkpoint(tmp_path / "D_1.pth", wanted="generator")
    with pytest.raises(ModelFileRefused, match="is a generator; give the D_ file"):
        read_training_checkpoint(tmp_path / "G_1.pth", wanted="discriminator")
    with pytest.raises(ModelFileRefused, match="exported RVC voice"):
        read_training_checkpoint(rvc_voice(tmp_path / "v.pth"))
    with pytest.raises(ModelFileRefused, match="tensors alone"):
        checkpoint_of({"model": {"emb_g.weight": torch.ones(1), "x": 3}}, "x")
    with pytest.raises(NotFound):
        read_training_checkpoint(tmp_path / "none.pth")


def text_encoder_first(module: SynthesizerNetwork) -> OrderedDict[str, torch.Tensor]:
    """The order in which older RVC files and Applio's hold the same v2 network."""
    state = module.state_dict()
    first = [name for name in state if name.startswith("enc_p.")]
    return OrderedDict((name, state[name]) for name in [*first, *(name for name in state if name not in first)])


def test_optimizer_states_are_brought_into_our_order() -> None:
    network = tiny_network()
    model = text_encoder_first(network)
    state = {
        number: {"step": torch.tensor(3.0), "exp_avg": value * 2, "exp_avg_sq": value * value}
        for number, value in enumerate(model.values())
    }
    groups = [{"lr": 9e-5, "betas": (0.8, 0.99), "eps": 1e-9, "weight_decay": 0.01, "params": list(range(len(model)))}]
    file = {"model": model, "iteration": 3, "optimizer": {"state": state, "param_groups": groups}}

    ready = optimizer_state(checkpoint_of(file, "G_3.pth"), network, "G_3.pth")

    optimizer = adamw(network)
    optimizer.load_state_dict(ready)
    for parameter in network.parameters():
        torch.testing.assert_close(optimizer.state[parameter]["exp_avg"], parameter.detach() * 2)
    assert optimizer.param_groups[0]["lr"] == 9e-5


def test_what_is_no_number_in_an_optimizer_state_is_never_walked(tmp_path: Path) -> None:
    many: list[Any] = [1]
    for _ in range(4):
        many = [many] * 300
    network = tiny_network()
    values = network.state_dict().values()
    state = {number: {"exp_avg": value, "exp_avg_sq": value, "step": many} for number, value in enumerate(values)}
    group: dict[str, Any] = {"lr": 9e-5, "params": list(range(len(state)))}
    file = {"model": network.state_dict(), "optimizer": {"state": state, "param_groups": [group]}}

    ready = optimizer_state(checkpoint_of(file, "G_3.pth"), network, "G_3.pth")

    assert ready["state"][0].keys() == {"exp_avg", "exp_avg_sq"}
    group["betas"] = many
    with pytest.raises(ModelFileRefused, match="other things than numbers"):
        optimizer_state(checkpoint_of(file, "G_3.pth"), network, "G_3.pth")


def test_a_training_checkpoint_of_more_than_two_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "G_1.pth"
    with path.open("wb") as file:
        file.truncate(2 * 2**30 + 1)

    with pytest.raises(ModelFileRefused, match="the limit is 2147483648"):
        read_training_checkpoint(path)


def test_an_optimizer_state_of_something_else_is_refused(tmp_path: Path) -> None:
    network = tiny_network()
    held = read_training_checkpoint(training_file(tmp_path / "G_1.pth", network))
    assert held.optimizer is not None
    twisted = {**held.optimizer, "state": {**held.optimizer["state"], 0: held.optimizer["state"][1]}}

    for checkpoint, module, reason in (
        (replace(held, optimizer=None), network, "holds no optimizer state"),
        (held, tiny_network(0, replace(TINY, f0=False)), "of another network"),
        (replace(held, optimizer=twisted), network, "does not fit"),
        (replace(held, optimizer={**held.optimizer, "param_groups": []}), network, "other groups"),
    ):
        with pytest.raises(ModelFileRefused, match=reason):
            optimizer_state(checkpoint, module, "G_1.pth")


@needs_fixtures
def test_the_references_checkpoint_goes_on_here_with_its_optimizer() -> None:
    facts = read_json("rvc_v2_f0/rvc_v2_f0.json")
    network = SynthesizerNetwork(config_of(facts["config"], "v2", True))
    held = read_training_checkpoint(FIXTURES / "rvc_v2_f0" / "G_70.pth", wanted="generator")

    start_from(network, held, "G_70.pth")
    optimizer = adamw(network)
    optimizer.load_state_dict(optimizer_state(held, network, "G_70.pth"))

    assert held.epoch == facts["checkpoint"]["iteration"]
    assert held.learning_rate == facts["checkpoint"]["learning_rate"]
    assert optimizer.param_groups[0]["lr"] == facts["checkpoint"]["param_group_lr"]
    assert len(optimizer.state) == facts["checkpoint"]["n_model_keys"]
