"""`adaptd exporter`: what it counts, over a real tap and HTTP; the dashboard and the alerts."""

import json
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from runtime.cli import main as adaptd
from runtime.errors import ProtocolError
from runtime.exporter.belief import width
from runtime.exporter.histogram import BOUNDS_S, Histogram
from runtime.exporter.ledger import Ledger
from runtime.exporter.metrics import Metrics
from runtime.messages import Header, Kind
from runtime.spec import Manifest
from tests.bundles import make_manifest
from tests.keyed import KeyedDaemon

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "monitoring" / "grafana.json"
ALERTS = ROOT / "monitoring" / "alerts.yml"
ONE = np.array([1.0, 0.0])


@contextmanager
def exporting(daemon, *settings):
    """An exporter of a daemon, as a process; gives its address."""
    command = [sys.executable, "-m", "runtime.cli", "exporter", "--endpoint", daemon.endpoint]
    command += ["--port", "0", "--every-s", "0.1", *settings]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        said = process.stdout.readline()
        yield re.match(r"(http://127\.0\.0\.1:\d+/metrics) of ", said)[1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        process.stdout.close()


def scrape(address):
    """The samples by name and labels, added up over the policies."""
    with urllib.request.urlopen(address, timeout=5) as page:
        text = page.read().decode()
    found = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            told = (v for k, v in sorted(sample.labels.items()) if k != "policy")
            found[sample.name, *told] += sample.value
    return dict(found)


def until(address, condition, timeout_s=15.0):
    """Scrape until something is told; all that is told then."""
    deadline = time.monotonic() + timeout_s
    while not condition(found := scrape(address)):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def test_buckets_by_hand():
    """20 us and 25 us are in the first bucket, 26 us in the second, 2 s above all."""
    histogram = Histogram()
    histogram.add(np.array([20e-6, 25e-6, 26e-6, 2.0]))
    counted = dict(histogram.cumulative())
    assert counted["2.5e-05"] == 2 and counted["5e-05"] == 3 and counted["1"] == 3
    assert counted["+Inf"] == 4 and histogram.sum_s == pytest.approx(2.000071)
    assert len(counted) == len(BOUNDS_S) + 1


def manifest_with(*belief):
    facts = make_manifest("counter", 1, 2, False, belief=list(belief))
    record = {"sha256": "0" * 64, "size": 0}
    return Manifest.model_validate(
        facts | {"files": {"policy.onnx": record, "golden.safetensors": record}}
    )


def test_the_width_of_a_belief_is_its_mean_deviation():
    """Variances 4 and 16, 9: deviations 2, 4 and 3."""
    mean = {"name": "mean", "shape": [2], "role": "mean"}
    both = {"name": "variance", "shape": [2], "role": "variance"}
    more = {"name": "more", "shape": [1], "role": "variance"}
    manifest = manifest_with(mean, both, more)
    assert width(manifest, np.array([7, 7, 4, 16, 9], np.float32)) == pytest.approx(3.0)
    assert math.isnan(width(manifest, np.zeros(0, np.float32)))  # no step was made
    assert math.isnan(width(manifest_with(mean), np.ones(2, np.float32)))


def status_of(*rows):
    zero = dict.fromkeys(("steps", "gaps", "missed", "repeated", "refused", "limited", "stale"), 0)
    return {"sessions": [zero | {"policy": "p@1", "next_seq": 0} | row for row in rows]}


def nobody(session, generation):
    return None


def test_counters_never_fall_where_sessions_end_or_begin_again():
    ledger = Ledger(nobody, nobody)
    ledger.take_status(status_of({"session": 1, "steps": 10}, {"session": 2, "steps": 5}))
    ledger.take_status(status_of({"session": 1, "steps": 12}))
    ledger.take_status({})  # the daemon does not answer
    ledger.take_status(status_of({"session": 1, "steps": 3}, {"session": 2, "steps": 6}))
    assert ledger.policies["p@1"].counters["steps"] == 10 + 5 + 2 + 3 + 6


def frames(session, seq, queue_ns=0, inference_ns=0, limits=0, flags=0, reward=0.0):
    seen = Header(Kind.OBSERVATION, flags, session, seq, 0, reward).pack()
    told = (0.0, 0, 0, 0, 0, limits, queue_ns, inference_ns, 2)
    return [b"", seen, Header(Kind.ACTION, 0, session, seq, 0, *told).pack(), b""]


def test_ticks_by_hand():
    ledger = Ledger(lambda session, _: {1: "p@1", 2: "q@1"}.get(session), nobody)
    refusal = Header(Kind.ERROR, 0, 1, 3, 0).pack()
    told = [frames(1, 0, 10_000, 5_000, limits=1 | 2), [b"", b"", refusal, b""],
            frames(2, 7, 30_000, 30_000), frames(1, 1, 5_000, 5_000, limits=1)]  # fmt: skip
    ledger.take_ticks(told, now_s=50.0)
    p, q = ledger.policies["p@1"], ledger.policies["q@1"]
    assert p.latency.counts.sum() == 2 and p.latency.sum_s == pytest.approx(25e-6)
    assert q.inference.sum_s == pytest.approx(30e-6)
    assert {limit.name: n for limit, n in p.limited.items() if n} == {"BOUNDS": 2, "RATE": 1}
    assert ledger.sessions[1].seen_s == 50.0 and ledger.sessions[1].adaptation == 2
    ledger.take_ticks([frames(1, 5)], now_s=51.0)
    assert ledger.continuity.missed == {1: 3}  # 2, 3 and 4 were dropped on the way


def test_swaps_and_refusals_and_the_daemon_itself(daemon, client):
    session = client.open("counter@1", session=7)
    with exporting(daemon) as address:
        until(address, lambda found: found.get(("adaptd_up",)) == 1)
        session.step(ONE)
        session.step(ONE)
        session.next_seq = 0
        with pytest.raises(ProtocolError):
            session.step(ONE)
        session.next_seq = 2
        client.request("swap", session=7, policy="counter@2")
        until(address, lambda found: found[("adaptd_swaps_total", "ready")] == 1)
        client.request("rollback", session=7)  # before a tick has taken it
        found = until(address, lambda found: found[("adaptd_swaps_total", "rolled_back")] == 1)
    assert found[("adaptd_refused_frames_total", "OLD_SEQ")] == 1
    assert found[("adaptd_refused_bundles_total", "untrusted")] == 0
    assert found[("adaptd_refused_observations_total",)] == 1
    assert found[("adaptd_resident_memory_bytes",)] > 10e6
    assert found[("adaptd_loaded_policies",)] == 2


def test_the_counters_of_one_policy_exactly(daemon, client):
    session = client.open("counter@1", session=7)
    with exporting(daemon) as address:
        until(address, lambda found: found.get(("adaptd_sessions", "unadapted")) == 1)
        session.step(ONE, new_task=True)
        session.step(np.array([500.0, 0.0]), episode_start=True)
        session.next_seq = 4
        session.step(ONE, reward=2.5)
        session.step(ONE, reward=1.5, episode_start=True)
        session.next_seq = 5
        session.step(ONE)
        session.step(ONE, invalid=True)
        found = until(address, lambda found: found[("adaptd_ticks_total",)] == 5)
        found = until(address, lambda found: found[("adaptd_limits_total", "invalid")] == 1)
    assert found[("adaptd_steps_total",)] == 4
    assert found[("adaptd_gaps_total",)] == 1 and found[("adaptd_missed_observations_total",)] == 2
    assert found[("adaptd_duplicates_total",)] == 1
    assert found[("adaptd_stale_observations_total",)] == 1
    assert found[("adaptd_limits_total", "bounds")] >= 1
    assert found[("adaptd_tick_latency_seconds_count",)] == 5
    assert found[("adaptd_tick_latency_seconds_bucket", "+Inf")] == 5
    assert found[("adaptd_exporter_missed_ticks_total",)] == 0
    assert found[("adaptd_session_belief_width", "7")] > 0
    assert found[("adaptd_session_episode_return", "7")] == 4.0
    assert found[("adaptd_session_idle_seconds", "7")] < 15


def test_a_fleet_gets_series_of_its_first_sessions_only(daemon, client):
    with exporting(daemon, "--sessions", "2") as address:
        until(address, lambda found: found.get(("adaptd_up",)) == 1)
        fleet = client.fleet("counter@1", sessions=[1, 2, 3, 4, 5])

        def all_seen(found):
            fleet.step(np.random.default_rng(0).random((5, 2), np.float32))
            return found[("adaptd_exporter_sessions_left_out",)] == 3

        found = until(address, all_seen)
    assert {k[1] for k in found if k[0] == "adaptd_session_adaptation"} == {"1", "2"}


def test_a_daemon_that_goes_and_comes_back(daemon, client):
    client.open("counter@1", session=7).step(ONE)
    with exporting(daemon) as address:
        until(address, lambda found: found.get(("adaptd_ticks_total",)) == 1)
        daemon.kill()
        found = until(address, lambda found: found[("adaptd_up",)] == 0)
        assert found[("adaptd_ticks_total",)] == 1  # what was counted stays
        assert ("adaptd_sessions", "unadapted") not in found
        daemon.start()
        found = until(address, lambda found: found[("adaptd_up",)] == 1)
        assert found[("adaptd_ticks_total",)] == 1


def test_it_serves_this_machine_alone(daemon):
    with exporting(daemon) as address:
        port = int(re.search(r":(\d+)/", address)[1])
        listening = [
            line.split()[1]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        ]
    assert listening == [f"0100007F:{port:04X}"]


def test_a_port_that_is_taken_and_settings_that_cannot_be(daemon, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status = adaptd(["exporter", "--endpoint", daemon.endpoint, "--port", str(port)])
    assert status == 2 and "cannot be served: Address already in use" in capsys.readouterr().err
    for arguments, complaint in (
        (["--port", "70000"], "between 0 and 65535"),
        (["--every-s", "0"], "between 0.1 and 3600"),
        (["--sessions", "-1"], "must not be negative"),
    ):
        assert adaptd(["exporter", *arguments]) == 2
        assert complaint in capsys.readouterr().err


@pytest.fixture(scope="module")
def exposed(tmp_path_factory):
    """The names of all samples that an exporter serves once everything has happened."""
    from runtime.daemon_process import DaemonProcess
    from tests.bundles import write_bundle

    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "counter")
    with DaemonProcess(models) as daemon, daemon.client() as client, exporting(daemon) as address:
        until(address, lambda found: found.get(("adaptd_up",)) == 1)
        session = client.open("counter", session=7)
        client.request("status")
        with pytest.raises(ProtocolError):
            session.step(np.array([np.nan, 0.0]))
        session.step(ONE, new_task=True)
        session.step(ONE, reward=1.0, episode_start=True)

        def whole(found):
            session.step(ONE)
            wanted = {("adaptd_session_episode_return", "7"), ("adaptd_session_belief_width", "7")}
            return wanted | {("adaptd_refused_frames_total", "NOT_FINITE")} <= set(found)

        keyed = {**client.request("status"), "access": ACCESS}
        return {key[0] for key in until(address, whole)} | names_of(keyed)


ACCESS = {
    "clients": 2, "connections": 8, "trouble": "",
    "refused_messages": {"data": {"NOT_YOURS": 1}},
    "refused_handshakes": {"unknown_key": 1},
    "ended_connections": {"revoked": 1},
}  # fmt: skip
"""What a daemon tells that asks for keys."""


def names_of(status):
    """The names of all samples that a status makes."""
    ledger = Ledger(nobody, nobody)
    ledger.take_status(status)
    collected = Metrics(ledger, threading.Lock(), 0).collect()
    return {sample.name for metric in collected for sample in metric.samples}


def expressions():
    """Every query of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    told = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    told += [a["expr"] for a in dashboard["annotations"]["list"]]
    told += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return told


def alert_expressions():
    rules = re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.MULTILINE)[1:]
    return {rule.split("\n")[0]: rule for rule in rules}


def test_the_dashboard_and_the_alerts_ask_for_what_is_served(exposed):
    asked = {
        name
        for text in [*expressions(), *alert_expressions().values()]
        for name in re.findall(r"adaptd_[a-z_]+", text)
    }
    assert len(asked) > 20
    assert asked <= exposed, asked - exposed


def test_the_dashboard_shows_all_that_is_served(exposed):
    asked = set(re.findall(r"adaptd_[a-z_]+", " ".join(expressions())))
    alone = {"adaptd_steps_total", "adaptd_session_adaptation", "adaptd_session_idle_seconds",
             "adaptd_sessions_switched", "adaptd_loaded_policies"}  # fmt: skip
    histograms = {name for name in exposed if name.endswith(("_sum", "_count", "_bucket"))}
    created = {name for name in exposed if name.endswith("_created")}
    assert exposed - asked - alone - histograms - created == set()


def test_panels_do_not_overlap():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (apt install prometheus)"
)


@needs_promtool
def test_prometheus_understands_every_query(tmp_path):
    """The dashboard's, as the rules of a file; Grafana puts in the variables."""
    rules = [
        f"      - record: 'q{i}'\n        expr: {json.dumps(filled(text))}"
        for i, text in enumerate(e for e in expressions() if not e.startswith("label_values"))
    ]
    file = tmp_path / "rules.yml"
    file.write_text("groups:\n  - name: q\n    rules:\n" + "\n".join(rules))
    for path in (file, ALERTS):
        result = subprocess.run(
            ["promtool", "check", "rules", path], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr + result.stdout


def filled(query):
    return query.replace("$__rate_interval", "1m").replace("$policy", ".*")


ALERT_CASES = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'adaptd_up', values: '1x8 0x20'}}
      - {{series: 'adaptd_ticks_total{{policy="p"}}', values: '0+300x60'}}
      - {{series: 'adaptd_stale_observations_total{{policy="p"}}', values: '0+2x20 40+6x40'}}
      - {{series: 'adaptd_limits_total{{policy="p",reason="bounds"}}', values: '0+50x60'}}
      - {{series: 'adaptd_limits_total{{policy="p",reason="rate"}}', values: '0+20x60'}}
      - {{series: 'adaptd_swaps_total{{policy="p",outcome="sent_back"}}', values: '0x20 1x40'}}
      - {{series: 'adaptd_refused_handshakes_total{{reason="unknown_key"}}', values: '0x20 8x20 40x20'}}
      - {{series: 'adaptd_refused_handshakes_total{{reason="broken_off"}}', values: '0+9x60'}}
      - {{series: 'adaptd_refused_access_total{{plane="data",code="NOT_YOURS"}}', values: '0x20 0+60x40'}}
      - {{series: 'adaptd_allowlist_broken', values: '0x20 1x40'}}
    alert_rule_test:
      - {{eval_time: 1m, alertname: AdaptdSilent, exp_alerts: []}}
      - eval_time: 3m
        alertname: AdaptdSilent
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations: {{summary: "The daemon does not answer; its robots act by their fallback actions."}}
      - {{eval_time: 5m, alertname: AdaptdObservationsNotActedOn, exp_alerts: []}}
      - eval_time: 9m
        alertname: AdaptdObservationsNotActedOn
        exp_alerts:
          - exp_labels: {{severity: warning, policy: p}}
            exp_annotations: {{summary: "More than 1 % of the observations of p are too old, too seldom, invalid or stuck."}}
      - {{eval_time: 4m, alertname: AdaptdActionsClamped, exp_alerts: []}}
      - eval_time: 12m
        alertname: AdaptdActionsClamped
        exp_alerts:
          - exp_labels: {{severity: warning, policy: p}}
            exp_annotations: {{summary: "More than 20 % of the actions of p are clamped."}}
      - {{eval_time: 4m, alertname: AdaptdSwapSentBack, exp_alerts: []}}
      - eval_time: 7m
        alertname: AdaptdSwapSentBack
        exp_alerts:
          - exp_labels: {{severity: warning}}
            exp_annotations: {{summary: "A policy was swapped to and sent back; the daemon's log says why."}}
      - {{eval_time: 8m, alertname: AdaptdKeysRefused, exp_alerts: []}}
      - eval_time: 11m
        alertname: AdaptdKeysRefused
        exp_alerts:
          - exp_labels: {{severity: warning, reason: unknown_key}}
            exp_annotations: {{summary: "More than ten connections were refused in five minutes: unknown_key."}}
      - {{eval_time: 5m, alertname: AdaptdClientsRefused, exp_alerts: []}}
      - eval_time: 8m
        alertname: AdaptdClientsRefused
        exp_alerts:
          - exp_labels: {{severity: warning, plane: data, code: NOT_YOURS}}
            exp_annotations: {{summary: "A client goes on sending what it may not: NOT_YOURS on data."}}
      - {{eval_time: 5m, alertname: AdaptdAllowListBroken, exp_alerts: []}}
      - eval_time: 8m
        alertname: AdaptdAllowListBroken
        exp_alerts:
          - exp_labels: {{severity: critical}}
            exp_annotations: {{summary: "The list of clients cannot be read; nobody is let in or revoked by what it says now."}}
"""  # noqa: E501


@needs_promtool
def test_alerts_fire_above_their_thresholds_and_not_below(tmp_path):
    file = tmp_path / "cases.yml"
    file.write_text(ALERT_CASES.format(rules=ALERTS))
    result = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout


def test_what_keys_refused_is_exported(models, keys):
    """Counters by reason, and nothing of them where no keys are asked for."""
    with KeyedDaemon(models, keys) as daemon:
        with daemon.of("robot") as robot, pytest.raises(ProtocolError):
            robot.request("shutdown")
        with daemon.of("operator") as operator:
            status = operator.request("status")
    ledger = Ledger(lambda *_: None, lambda *_: None)
    # What is told of the daemon is its own word: its processes are out of the exporter's sight.
    ledger.take_status({**status, "pid": 2**22 + 1})
    samples = {
        (s.name, *s.labels.values()): s.value
        for metric in Metrics(ledger, threading.Lock(), 0).collect()
        for s in metric.samples
    }
    assert samples["adaptd_refused_access_total", "control", "NOT_ALLOWED"] == 1
    assert (
        samples["adaptd_refused_handshakes_total", "replayed"] == 0
    )  # and seen to rise from there
    assert samples["adaptd_clients",] == 6 and samples["adaptd_allowlist_broken",] == 0
    assert samples["adaptd_resident_memory_bytes",] == status["resident_bytes"] > 10e6
    ledger.take_status({**status, "access": None})
    names = {m.name for m in Metrics(ledger, threading.Lock(), 0).collect()}
    assert "adaptd_clients" not in names
