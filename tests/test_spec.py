"""The bundle contract: what is sound loads, what is broken is refused with its reason."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from runtime.errors import InvalidBundle, UnknownName
from runtime.spec import (
    GOLDEN,
    MANIFEST,
    POLICY,
    Manifest,
    file_record,
    parse_manifest,
    split_reference,
)
from runtime.store import Store
from tests.bundles import make_graph, make_manifest, write_bundle


def edit(folder, change):
    """Change a bundle's manifest in place."""
    facts = json.loads((folder / MANIFEST).read_text())
    change(facts)
    (folder / MANIFEST).write_text(json.dumps(facts))


def replace(folder, name, content):
    """Replace one of a bundle's files, and its record in the manifest."""
    (folder / name).write_bytes(content)
    edit(folder, lambda facts: facts["files"].update({name: file_record(content).model_dump()}))


def regolden(folder, change):
    """Change every array of a bundle's golden trace."""
    trace = load((folder / GOLDEN).read_bytes())
    changed = {name: np.ascontiguousarray(change(name, value)) for name, value in trace.items()}
    replace(folder, GOLDEN, save(changed))


def test_a_name_means_its_highest_version(models):
    store = Store(models)
    assert store.references() == ["counter@1", "counter@2", "other@1"]
    assert store.load("counter").label == "counter@2"
    assert store.load("counter@1").label == "counter@1"
    assert store.load("counter@1") is store.load("counter@1")


def test_what_does_not_exist_is_answered_by_what_does(models):
    store = Store(models)
    with pytest.raises(UnknownName, match=r"Did you mean 'counter'\? Known: counter, other"):
        store.load("conter")
    with pytest.raises(UnknownName, match=r"Did you mean 'counter@2'\?"):
        store.load("counter@3")
    for bad in ("../counter", "counter@", "counter@0", "counter@-1", "Counter", "", "a@1@2"):
        with pytest.raises(InvalidBundle, match="is not a policy"):
            store.load(bad)


BREAKAGES = {
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "manifest.json cannot be read"),
    "bad json": (lambda f: (f / MANIFEST).write_text("{"), "Invalid JSON"),
    "unknown key": (
        lambda f: edit(f, lambda m: m.update(colour="red")),
        "colour: Extra inputs are not permitted",
    ),
    "missing key": (lambda f: edit(f, lambda m: m.pop("carry")), "carry: Field required"),
    "newer schema": (lambda f: edit(f, lambda m: m.update(schema_version=2)), "schema_version"),
    "another's name": (
        lambda f: edit(f, lambda m: m.update(name="else")),
        "says it is else@1, not mine@1",
    ),
    "no graph": (lambda f: (f / POLICY).unlink(), "policy.onnx cannot be read"),
    "no golden": (lambda f: (f / GOLDEN).unlink(), "golden.safetensors cannot be read"),
    "wrong hash": (
        lambda f: (f / POLICY).write_bytes((f / POLICY).read_bytes()[:-1] + b"\0"),
        "policy.onnx is not the file the manifest describes",
    ),
    "truncated": (
        lambda f: (f / POLICY).write_bytes((f / POLICY).read_bytes()[:100]),
        "found 100 bytes",
    ),
    "not a graph": (lambda f: replace(f, POLICY, b"garbage"), "the graph cannot be loaded"),
    "empty graph": (lambda f: replace(f, POLICY, b""), "the graph cannot be loaded"),
    "other carry": (
        lambda f: replace(f, POLICY, make_graph(carry_size=3)),
        r"input 'carry.h' is tensor\(float\) .* expected tensor\(float\) \[batch, 2\]",
    ),
    "other inputs": (
        lambda f: replace(f, POLICY, make_graph(noisy=True)),
        "the graph's inputs are",
    ),
    "other weights": (
        lambda f: replace(f, POLICY, make_graph(gain=1.001)),
        "replaying the golden trace, 'action' differs by",
    ),
    "golden of nothing": (lambda f: replace(f, GOLDEN, save({})), "golden.safetensors is incompl"),
    "golden garbage": (lambda f: replace(f, GOLDEN, b"\xff" * 64), "cannot be replayed"),
    "golden of other widths": (
        lambda f: regolden(f, lambda n, v: v[:, :1] if n == "input.obs" else v),
        r"'input.obs' is float32 \[5, 1\], expected float32 \[5, 2\]",
    ),
    "golden of other types": (
        lambda f: regolden(f, lambda n, v: v.astype("float64")),
        "is float64",
    ),
    "golden from another start": (
        lambda f: edit(f, lambda m: m["carry"][0].update(init=7.0)),
        "starts from another 'h' than the manifest's init",
    ),
    "initial carry of nothing": (
        lambda f: edit(f, lambda m: m["carry"][0].update(init=[{}, {}])),
        "carry.0",
    ),
    "initial carry not finite": (
        lambda f: edit(f, lambda m: m["carry"][0].update(init=[None, 0.0])),
        "carry.0",
    ),
    "initial carry too large": (
        lambda f: edit(f, lambda m: m["carry"][0].update(init=1e20, dtype="int32")),
        "carry.0",
    ),
    "fallback too long": (
        lambda f: edit(f, lambda m: m["fallback_action"].append(0.0)),
        "fallback_action has 3 elements, the action has 2",
    ),
    "fallback out of bounds": (
        lambda f: edit(f, lambda m: m.update(fallback_action=[0.0, 7.0])),
        "fallback_action for 'turn' is out of its bounds",
    ),
    "bounds upside down": (
        lambda f: edit(f, lambda m: m["action"][0].update(low=20.0)),
        "action 'push': low is not below high",
    ),
    "inputs without carry": (
        lambda f: edit(f, lambda m: m["inputs"].remove("carry.h")),
        "inputs name",
    ),
    "initial carry of another shape": (
        lambda f: edit(f, lambda m: m["carry"][0].update(init=[1.0, 2.0, 3.0])),
        "carry.0",
    ),
    "a carry without end": (
        lambda f: edit(f, lambda m: m["carry"][0].update(shape=[10**6, 10**6])),
        "more than",
    ),
    "not a number": (lambda f: edit(f, lambda m: m.update(control_hz=float("nan"))), "control_hz"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_broken_bundle_is_refused_with_the_reason(tmp_path, name):
    breakage, reason = BREAKAGES[name]
    folder = write_bundle(tmp_path, "mine")
    Store(tmp_path).load("mine")
    breakage(folder)
    with pytest.raises(InvalidBundle, match=reason) as refusal:
        Store(tmp_path).load("mine")
    assert "\n" not in str(refusal.value)


def test_a_golden_trace_that_is_too_short_is_refused(tmp_path):
    folder = write_bundle(tmp_path, "mine")
    regolden(folder, lambda name, value: value[:2] if "put." in name else value)
    with pytest.raises(InvalidBundle, match=r"is float32 \[2, 2\], expected float32 \[5, 2\]"):
        Store(tmp_path).load("mine")


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text_as_a_manifest_is_refused_in_one_sentence(text):
    with pytest.raises(InvalidBundle):
        parse_manifest(text, "here")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=150))
def test_a_reference_is_read_or_refused(text):
    try:
        name, version = split_reference(text)
    except InvalidBundle:
        return
    assert text == (name if version is None else f"{name}@{version}")
    assert "/" not in name and not name.startswith(".")


def test_the_manifest_keeps_every_bit_of_a_float():
    files = {n: file_record(b"").model_dump() for n in (POLICY, GOLDEN)}
    facts = make_manifest("mine", 1, 2, False, files=files)
    facts["action"][0]["low"] = -0.1 - 0.2  # not a short decimal
    manifest = Manifest.model_validate(facts)
    again = parse_manifest(manifest.model_dump_json(), "here")
    assert again == manifest
    assert again.action[0].low == -0.1 - 0.2
