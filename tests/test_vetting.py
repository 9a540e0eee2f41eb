"""Bundles that mean harm are refused, each for its reason, before the daemon touches them."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidBundle, UnsafeBundle
from runtime.graph import load_graph
from runtime.spec import GOLDEN, MANIFEST, POLICY, file_record
from runtime.store import Store
from runtime.vetting.admission import Admission
from runtime.vetting.onnx_model import check_model
from runtime.vetting.operators import STRAIGHT
from runtime.vetting.passed import Passed
from runtime.vetting.vet import Limits, _environment, vet
from tests import hostile_models as hostile
from tests.bundles import make_graph, write_bundle
from tests.conftest import SHIPPED
from tests.test_spec import edit, replace

REFUSED = {
    "external data": (hostile.with_external_data("weights.bin"), "external data"),
    "external data, absolute": (hostile.with_external_data("/etc/hostname"), "external data"),
    "external data, above": (hostile.with_external_data("../weights.bin"), "external data"),
    "external data in memory": (
        hostile.with_external_data("*/_ORT_MEM_ADDR_/*"),
        "external data",
    ),
    "external data in a node": (hostile.with_external_attribute, "external data"),
    "a function": (hostile.with_function, "functions of its own"),
    "a foreign domain": (hostile.with_domain, "domain 'com.microsoft'"),
    "random numbers": (hostile.with_random_numbers, "'RandomNormalLike', which is not among"),
    "a sparse tensor": (hostile.with_sparse_initializer, "sparse initializers"),
    "training": (hostile.with_training, "training information"),
    "settings": (hostile.with_settings, "settings for ONNX Runtime"),
    "texts": (hostile.with_texts, "texts in tensors"),
    "many nodes": (hostile.with_many_nodes, "more than 20000 operators"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_holds_more_than_a_policy_needs_is_refused(name):
    change, reason = REFUSED[name]
    with pytest.raises(UnsafeBundle, match=f"mine: the graph cannot be loaded: it has .*{reason}"):
        load_graph("mine", hostile.changed(change), control_flow=True)


def test_loops_are_for_what_runs_off_the_control_path():
    check_model(hostile.looping_adapt(3), control_flow=True)
    check_model(hostile.looping_adapt(3, depth=3), control_flow=True)
    with pytest.raises(UnsafeBundle, match=r"'Loop', which may run .* for adapt\.onnx alone"):
        check_model(hostile.looping_adapt(3))
    with pytest.raises(UnsafeBundle, match="more than 4 deep"):
        check_model(hostile.looping_adapt(3, depth=4), control_flow=True)


def test_what_hides_in_a_loop_is_found():
    proto = onnx.load_from_string(hostile.looping_adapt(3))
    (body,) = (a.g for n in proto.graph.node for a in n.attribute if a.name == "body")
    body.node[1].op_type = "RandomNormalLike"
    with pytest.raises(UnsafeBundle, match="RandomNormalLike"):
        check_model(proto.SerializeToString(), control_flow=True)


def test_a_part_that_protobuf_would_join_is_looked_at():
    """The last field of a message counts, and messages in several parts are joined."""
    outside = onnx.ModelProto()
    tensor = outside.graph.initializer.add(name="late", data_location=1)
    tensor.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(UnsafeBundle, match="external data"):
        check_model(make_graph() + outside.SerializeToString())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no graph"),
        (make_graph()[:-1], "bytes has"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a number does not end"),
        (b"\x00\x00", "number 0"),
        (b"\x3b", "wire type 3"),
        (b"\x38\x01", "a number for field 7 of a model"),
        (make_graph() + b"\xfa\x7f\x00", "a field 2047 in a model"),
    ],
)
def test_what_is_no_onnx_is_refused(content, reason):
    with pytest.raises(UnsafeBundle, match=reason):
        check_model(content)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.data())
def test_any_bytes_are_let_in_or_refused(noise, data):
    sound = make_graph()
    at = data.draw(st.integers(0, len(sound)))
    for content in (noise, sound[:at] + noise + sound[at:], sound[:at] + noise + sound[at + 1 :]):
        try:
            check_model(content, control_flow=True)
        except UnsafeBundle as error:
            assert "\n" not in str(error)


def test_onnx_that_poses_as_onnx_runtimes_own_format_is_read_as_onnx():
    model = hostile.posing_as_ort()
    assert model[4:8] == b"ORTM"
    names = [node.name for node in load_graph("mine", model).get_outputs()]
    assert names == ["action", "next.h", "belief.spread"]


def test_the_page_lists_the_operators():
    page = (SHIPPED.parent / "docs" / "signing.md").read_text()
    quoted = " ".join(line[2:] for line in page.splitlines() if line.startswith("> "))
    assert quoted.split(", ") == sorted(STRAIGHT)


def test_every_shipped_graph_is_let_in():
    for path in SHIPPED.glob("*/*/*.onnx"):
        check_model(path.read_bytes())


@pytest.fixture
def mine(tmp_path):
    """A sound bundle, and a store that lets in what passes."""
    folder = write_bundle(tmp_path / "models", "mine")
    return folder, Store(tmp_path / "models", Admission())


def load(folder, **limits):
    return Store(folder.parents[1], Admission(limits=Limits(**limits))).load("mine")


def test_a_sound_bundle_passes(mine):
    _, store = mine
    assert store.load("mine").label == "mine@1"
    assert store.refused == {"invalid": 0, "unsafe": 0, "untrusted": 0, "downgrade": 0}


@pytest.mark.fault(
    "a model loops for ever when it is loaded", "Its trial is stopped; it is refused."
)
def test_a_model_that_loops_for_ever_is_stopped(tmp_path):
    # Made with a loop of one round; the one that never ends takes its place.
    folder = write_bundle(tmp_path, "mine", adapt=hostile.looping_adapt(1))
    assert load(folder).learner is not None
    replace(folder, "adapt.onnx", hostile.looping_adapt(1 << 62))
    began = time.monotonic()
    # 4 s by the clock on a machine that leaves it no processor
    with pytest.raises(UnsafeBundle, match=r"took more than (1 s of processor time|4 s): it is"):
        load(folder, cpu_s=1)
    assert time.monotonic() - began < 60


def test_a_step_that_loops_is_not_even_tried(tmp_path):
    folder = write_bundle(tmp_path, "mine")
    replace(folder, POLICY, hostile.looping_policy(1 << 62))
    with pytest.raises(UnsafeBundle, match="'Loop', which may run without end"):
        load(folder)


@pytest.mark.fault(
    "a model allocates without end when it is loaded", "Its trial is stopped; it is refused."
)
def test_a_model_that_allocates_without_end_is_stopped(tmp_path):
    folder = write_bundle(tmp_path, "mine")
    replace(folder, POLICY, hostile.hungry_policy(gibibytes=1 << 12))
    with pytest.raises(UnsafeBundle, match=r"mine@1: trying it took more than 256 MiB"):
        load(folder, memory_bytes=256 << 20)


def test_memory_within_the_limit_is_no_reason(tmp_path):
    # ten times the graph and its trace, and a tenth of the limit
    write_bundle(tmp_path, "mine", carry_size=1 << 16)
    assert load(tmp_path / "mine" / "1", memory_bytes=512 << 20).label == "mine@1"


BREAKAGES = {
    "golden not reproduced": (
        lambda f: replace(f, POLICY, make_graph(gain=1.001)),
        InvalidBundle,
        "replaying the golden trace, 'action' differs by",
    ),
    "other shapes": (
        lambda f: replace(f, POLICY, make_graph(carry_size=3)),
        InvalidBundle,
        "input 'carry.h' is tensor",
    ),
    "truncated": (
        lambda f: (f / POLICY).write_bytes((f / POLICY).read_bytes()[:100]),
        InvalidBundle,
        "found 100 bytes",
    ),
    "another hash": (
        lambda f: (f / POLICY).write_bytes((f / POLICY).read_bytes()[:-1] + b"\0"),
        InvalidBundle,
        "is not the file the manifest describes",
    ),
    "a file that is not listed": (
        lambda f: (f / "weights.bin").write_bytes(b"x"),
        UnsafeBundle,
        "holds 'weights.bin', which the manifest does not list",
    ),
    "a folder in it": (
        lambda f: (f / "more").mkdir(),
        UnsafeBundle,
        "holds 'more', which the manifest does not list",
    ),
    "a file listed that is elsewhere": (
        lambda f: edit(f, lambda m: m["files"].update({"../x": m["files"][POLICY]})),
        InvalidBundle,
        "String should match pattern",
    ),
    "a graph that is a link": (
        lambda f: as_link(f / POLICY),
        UnsafeBundle,
        "policy.onnx is a link",
    ),
    "a manifest that is a link": (
        lambda f: as_link(f / MANIFEST),
        UnsafeBundle,
        "manifest.json is a link",
    ),
    "a pipe": (
        lambda f: ((f / GOLDEN).unlink(), os.mkfifo(f / GOLDEN)),
        UnsafeBundle,
        "golden.safetensors is no plain file",
    ),
    "a manifest without end": (
        lambda f: (f / MANIFEST).write_bytes(b" " * ((4 << 20) + 1)),
        UnsafeBundle,
        r"more than the 4194304 allowed",
    ),
    "a carry of many tensors": (
        lambda f: edit(f, lambda m: m.update(carry=m["carry"] * 257)),
        InvalidBundle,
        "carry: List should have at most 256 items",
    ),
    "a carry without end": (
        lambda f: edit(f, lambda m: m.update(carry=[{**m["carry"][0], "shape": [1 << 24]}] * 2)),
        InvalidBundle,
        "carry",
    ),
}


def as_link(path):
    """Move a file elsewhere, and point to it."""
    elsewhere = path.parents[1] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("name", BREAKAGES)
@pytest.mark.fault(
    "a bundle's file is truncated, changed, a link, or not listed",
    "It is refused with the reason, and counted.",
)
def test_a_bundle_that_is_not_what_it_says_is_refused_and_counted(mine, name):
    breakage, kind, reason = BREAKAGES[name]
    folder, store = mine
    breakage(folder)
    with pytest.raises(kind, match=reason) as refusal:
        store.load("mine")
    assert "\n" not in str(refusal.value) and type(refusal.value) is kind
    assert store.refused[kind.kind] == 1 and sum(store.refused.values()) == 1


def test_a_manifest_that_would_take_long_to_read_is_refused(mine):
    """Reading one holds up the control loop: with more of the same it took seconds."""
    folder, store = mine
    sound = json.loads((folder / MANIFEST).read_text())
    endless = {**sound, "carry": [{**sound["carry"][0], "shape": [9] * 60_000}]}
    (folder / MANIFEST).write_text(json.dumps(endless))
    with pytest.raises(InvalidBundle, match=r"carry\.0\.shape: List should have at most 16"):
        store.load("mine")
    (folder / MANIFEST).write_text('{"a":[' + "0," * 70_000 + "0]}")
    with pytest.raises(InvalidBundle, match=r"it has 7000\d values, at most 65536 may be"):
        store.load("mine")


def test_a_file_larger_than_the_limit_is_not_read(mine):
    folder, _ = mine
    with open(folder / POLICY, "r+b") as file:
        file.truncate(1 << 40)  # sparse: it takes no room
    with pytest.raises(UnsafeBundle, match=r"policy\.onnx has 1099511627776 bytes, more than the"):
        Store(folder.parents[1], Admission()).load("mine")


def test_files_that_are_too_large_together_are_not_read(mine):
    """All are in memory at once; sparse ones would take no room on the disk."""
    folder, _ = mine
    record = {"sha256": "0" * 64, "size": 1 << 19}
    for name in ("a.bin", "b.bin"):
        with open(folder / name, "wb") as file:
            file.truncate(1 << 19)
    edit(folder, lambda m: m["files"].update({"a.bin": record, "b.bin": record}))
    with pytest.raises(UnsafeBundle, match=r"its files have 10\d+ bytes together, more than the 1"):
        Store(folder.parents[1], Admission(max_file_bytes=1 << 19)).load("mine")


@pytest.mark.parametrize("link", ["hard link", "symbolic link", "copy"])
def test_external_data_is_not_read_however_it_got_there(mine, link):
    folder, store = mine
    secret = folder.parents[1] / "secret"
    secret.write_bytes(bytes(64))
    beside = folder / "weights.bin"
    {"hard link": beside.hardlink_to, "symbolic link": beside.symlink_to}.get(
        link, lambda target: beside.write_bytes(target.read_bytes())
    )(secret)
    replace(folder, POLICY, hostile.changed(hostile.with_external_data("weights.bin")))
    if link != "symbolic link":
        record = file_record(secret.read_bytes()).model_dump()
        edit(folder, lambda facts: facts["files"].update({"weights.bin": record}))
    with pytest.raises(UnsafeBundle, match=r"external data|does not list"):
        store.load("mine")


@dataclass(frozen=True)
class Meddling(Admission):
    """Somebody changes the files while they are being tried."""

    folder: Path = Path()

    def try_out(self, label, manifest, files):
        super().try_out(label, manifest, files)
        replace(self.folder, POLICY, make_graph(gain=7))


def test_what_was_checked_is_what_is_served(mine):
    folder, _ = mine
    checked = (folder / POLICY).read_bytes()
    served = Store(folder.parents[1], Meddling(folder=folder)).load("mine")
    assert (folder / POLICY).read_bytes() != checked
    shapes = {"obs": 2, "prev_action": 2, "prev_reward": 1, "prev_done": 1}
    ones = {name: np.ones((1, size), np.float32) for name, size in shapes.items()}
    assert served.step(ones, served.initial_carry()).action.tolist() == [
        [2.0, 2.0]
    ]  # gain 1, not 7


def test_a_bundle_that_passed_is_not_tried_again(mine, tmp_path):
    folder, _ = mine
    path = tmp_path / "state" / "passed.json"
    impossible = Limits(cpu_s=1, memory_bytes=0)
    with pytest.raises(UnsafeBundle):
        Store(folder.parents[1], Admission(limits=impossible, passed=Passed(path))).load("mine")
    Store(folder.parents[1], Admission(passed=Passed(path))).load("mine")
    known = Admission(limits=impossible, passed=Passed(path))
    assert Store(folder.parents[1], known).load("mine").label == "mine@1"
    edit(folder, lambda facts: facts["provenance"].update(edited=True))
    with pytest.raises(UnsafeBundle):
        Store(folder.parents[1], known).load("mine")


@pytest.mark.parametrize("content", ["", "{", "7", "[1, 2]", '{"a": 1}'])
def test_a_list_of_passed_bundles_that_is_damaged_makes_them_be_tried(mine, tmp_path, content):
    folder, _ = mine
    path = tmp_path / "passed.json"
    path.write_text(content)
    passed = Passed(path)
    assert not passed.has((folder / MANIFEST).read_bytes())
    Store(folder.parents[1], Admission(passed=passed)).load("mine")
    assert Passed(path).has((folder / MANIFEST).read_bytes())


def test_a_trial_says_what_it_took(mine):
    folder, _ = mine
    files = {name: (folder / name).read_bytes() for name in (POLICY, GOLDEN)}
    trial = vet("mine@1", (folder / MANIFEST).read_bytes(), files, Limits())
    assert 0 < trial.seconds < 60 and 10 << 20 < trial.peak_bytes < 1 << 30


def test_nothing_of_the_environment_reaches_the_trial(mine, monkeypatch, tmp_path):
    """Secrets stay here, and a bundle cannot tell systemd that the daemon is well."""
    monkeypatch.setenv("ADAPTD_SECRET", "x")
    monkeypatch.setenv("NOTIFY_SOCKET", "x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "x")
    kept = _environment()
    assert all(key.startswith(("PYTHON", "LD_", "LANG", "OPENBLAS")) for key in kept)


def test_a_child_that_cannot_start_is_a_refusal(mine, monkeypatch):
    _, store = mine
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(InvalidBundle, match=r"mine@1 cannot be tried: .*No such file"):
        store.load("mine")
