"""Signatures: what is signed, whose count, and that nothing older comes back unasked."""

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.cli import main as adaptd
from runtime.errors import Downgrade, InvalidConfig, UntrustedBundle
from runtime.signing.counters import Counters
from runtime.signing.seal import Seal, key_id, read_seal
from runtime.signing.secret_key import make_key, read_key
from runtime.signing.trust import Trust, read_signature
from runtime.spec import MANIFEST, SIGNATURE
from runtime.store import Store
from runtime.vetting.admission import Admission
from tests.bundles import write_bundle
from tests.signed import Signer
from tests.test_spec import edit


@pytest.fixture
def ann(tmp_path):
    return Signer(tmp_path, "ann")


@pytest.fixture
def bob(tmp_path):
    return Signer(tmp_path, "bob")


@pytest.fixture
def mine(tmp_path):
    return write_bundle(tmp_path / "models", "mine")


class Trusting(Admission):
    """Signatures are looked at, and nothing is tried: tests/test_vetting.py does that."""

    def try_out(self, label, manifest, files):
        pass


def store(folder, *signers, required=True):
    keys = [signer.public for signer in signers]
    return Store(folder.parents[1], Trusting(Trust.of(keys, required)))


def refusal(of):
    with pytest.raises(UntrustedBundle) as found:
        of.load("mine")
    assert of.refused["untrusted"] == 1 and "\n" not in str(found.value)
    return str(found.value)


def test_a_signature_says_name_version_and_counter(mine, ann):
    assert ann.sign(mine, counter=17) == 17
    trusting = store(mine, ann)
    trusting.load("mine")
    assert trusting.seals["mine@1"] == Seal("mine", 1, 17, key_id(ann.public))
    comment = (mine / SIGNATURE).read_text().splitlines()[2]
    assert comment.startswith("trusted comment: adaptd bundle\tname:mine\tversion:1\tcounter:17\t")


def test_either_of_two_keys_will_do(mine, ann, bob):
    for signer in (ann, bob):
        signer.sign(mine)
        both = store(mine, ann, bob)
        both.load("mine")
        assert both.seals["mine@1"].key == key_id(signer.public)
    assert f"signed by the key {key_id(bob.public)}, trusted are" in refusal(store(mine, ann))


def test_one_without_a_signature_is_refused_where_one_is_required(mine, ann):
    assert "manifest.json.minisig is missing" in refusal(store(mine, ann))
    allowing = store(mine, ann, required=False)
    allowing.load("mine")
    assert allowing.seals["mine@1"] is None


def test_a_signature_that_is_there_counts_though_none_is_required(mine, ann, bob):
    bob.sign(mine)
    assert "is signed by the key" in refusal(store(mine, ann, required=False))


def test_without_keys_a_signature_is_not_looked_at(mine):
    (mine / SIGNATURE).write_text("nonsense")
    plain = store(mine, required=False)
    plain.load("mine")
    assert plain.seals["mine@1"] is None


def test_a_manifest_that_was_changed_is_refused(mine, ann):
    ann.sign(mine)
    edit(mine, lambda facts: facts.update(control_hz=50.0))
    assert "is of another manifest, or has been changed" in refusal(store(mine, ann))


def test_the_hashes_in_a_signed_manifest_hold_the_other_files(mine, ann):
    ann.sign(mine)
    (mine / "policy.onnx").write_bytes(b"\0" + (mine / "policy.onnx").read_bytes()[1:])
    with pytest.raises(Exception, match="is not the file the manifest describes"):
        store(mine, ann).load("mine")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.replace("counter:1\t", "counter:9\t"), "has been changed"),
        (lambda s: s.replace("version:1\t", "version:2\t"), "has been changed"),
        (lambda s: "", "is no signature"),
        (lambda s: s + "more\n", "is no signature"),
        (lambda s: s[:40], "is no signature"),
        (lambda s: s.replace("\nRU", "\nRW"), "legacy kind"),
        (
            lambda s: s.replace("trusted comment: adaptd", "trusted comment: \u2028adaptd"),
            "has been",
        ),
    ],
)
def test_a_signature_that_was_changed_is_refused(mine, ann, change, reason):
    ann.sign(mine, counter=1)
    signature = mine / SIGNATURE
    signature.write_text(change(signature.read_text()))
    assert reason in refusal(store(mine, ann))


@pytest.mark.parametrize(
    "comment",
    [
        "timestamp:1763000000\tfile:manifest.json\thashed",
        "adaptd bundle\tname:mine\tversion:1\tcounter:0\ttimestamp:1",
        "adaptd bundle\tname:mine\tversion:1\tcounter:01\ttimestamp:1",
        "adaptd bundle\tname:mine\tversion:1\tcounter:1\ttimestamp:1\tcounter:9",
        "adaptd bundle\tname:mine\tversion:1\tcounter:9999999999999999\ttimestamp:1",
        "",
    ],
)
def test_a_signed_comment_that_adaptd_did_not_write_is_refused(mine, ann, comment):
    ann.sign_with(mine, comment)
    assert "expected name, version and counter" in refusal(store(mine, ann))


def test_a_signature_of_another_bundle_is_refused(mine, ann):
    ann.sign_with(mine, Seal("other", 1, 1, "").line(0))
    assert "mine@1 has the signature of other@1" in refusal(store(mine, ann))


def test_minisigns_legacy_kind_is_refused(mine, ann):
    ann.sign_with(mine, Seal("mine", 1, 1, "").line(0), prehash=False)
    assert "legacy kind" in refusal(store(mine, ann))


def test_a_key_that_is_trusted_no_more_lets_nothing_in_that_is_in_memory(mine, ann, bob):
    """As after a reload without a key that was stolen; or one by which signatures are required."""
    ann.sign(mine)
    served = store(mine, ann)
    policy = served.load("mine")
    served.admission = Trusting(Trust.of([bob.public], required=False))
    assert "trusted are" in refusal(served)
    served.admission = Trusting(Trust.of([ann.public, bob.public], required=True))
    assert served.load("mine") is policy
    unsigned = store(mine, required=False)
    unsigned.load("mine")
    (mine / SIGNATURE).unlink()
    unsigned.load("mine")
    unsigned.admission = Trusting(Trust.of([ann.public], required=True))
    assert "is not signed" in refusal(unsigned)


def test_a_new_signature_is_looked_at_though_the_policy_is_in_memory(mine, ann, bob):
    ann.sign(mine, counter=1)
    trusting = store(mine, ann)
    policy = trusting.load("mine")
    ann.sign(mine, counter=22)
    assert trusting.load("mine") is policy and trusting.seals["mine@1"].counter == 22
    bob.sign(mine, counter=333)
    with pytest.raises(UntrustedBundle):
        trusting.load("mine")
    (mine / SIGNATURE).unlink()
    with pytest.raises(UntrustedBundle):
        trusting.load("mine")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_as_a_signature_are_refused_in_one_sentence(content):
    with pytest.raises(UntrustedBundle) as found:
        read_signature("mine", content)
    assert "\n" not in str(found.value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_as_a_seal_is_refused_in_one_sentence(text):
    with pytest.raises(UntrustedBundle) as found:
        read_seal("mine", text, "key")
    assert "\n" not in str(found.value)


class TestCounters:
    def seal(self, counter):
        return Seal("mine", counter, counter, "key")

    def counters(self, tmp_path, **named):
        return Counters.read(tmp_path / "counters.json", **{"enforced": True} | named)

    def test_a_lower_one_is_refused_after_a_restart_too(self, tmp_path):
        self.counters(tmp_path).note(self.seal(3))
        again = self.counters(tmp_path)
        for fine in (3, 4):
            again.check("mine@1", "mine", self.seal(fine))
        with pytest.raises(Downgrade, match=r"mine@1 is signed with counter 2, and mine with .* 3"):
            again.check("mine@1", "mine", self.seal(2))
        again.check("other@1", "other", None)

    def test_to_take_the_signature_away_is_a_downgrade(self, tmp_path):
        counters = self.counters(tmp_path)
        counters.check("mine@1", "mine", None)
        counters.note(self.seal(3))
        with pytest.raises(Downgrade, match="mine@1 is not signed, and mine with counter 3"):
            counters.check("mine@1", "mine", None)

    def test_a_lower_one_does_not_lower_it(self, tmp_path):
        counters = self.counters(tmp_path)
        for counter in (3, 2, None):
            counters.note(self.seal(counter) if counter else None)
        assert counters.highest == {"mine": 3}

    def test_an_operator_allows_it(self, tmp_path):
        counters = self.counters(tmp_path)
        counters.note(self.seal(5))
        counters.allow("mine@3", "mine", self.seal(3))
        assert self.counters(tmp_path).highest == {"mine": 3}
        counters.allow("mine@9", "mine", self.seal(9))
        assert counters.highest == {"mine": 3}  # nothing to allow
        counters.allow("mine@1", "mine", None)
        assert self.counters(tmp_path).highest == {}
        self.counters(tmp_path, enforced=False).check("mine@1", "mine", self.seal(1))

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"mine": "x"}', '{"mine": null}'])
    def test_a_damaged_file_is_for_an_operator_to_decide(self, tmp_path, content):
        (tmp_path / "counters.json").write_text(content)
        with pytest.raises(InvalidConfig, match=r"counters\.json cannot be read: it is damaged"):
            self.counters(tmp_path)

    def test_what_cannot_be_written_is_kept_and_tried_again(self, tmp_path):
        folder = tmp_path / "state"
        counters = Counters.read(folder / "counters.json", enforced=True)
        counters.note(self.seal(3))
        with pytest.raises(Downgrade):
            counters.check("mine@1", "mine", self.seal(2))
        folder.mkdir()
        counters.note(self.seal(3))
        assert Counters.read(folder / "counters.json", enforced=True).highest == {"mine": 3}

    def test_they_are_there_after_a_power_cut(self, tmp_path, monkeypatch):
        synced, sync = [], os.fsync
        monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), sync(fd)))
        self.counters(tmp_path).note(self.seal(3))
        assert synced == [(tmp_path / "counters.json").stat().st_ino, tmp_path.stat().st_ino]


class TestKeys:
    def test_a_secret_key_is_secret(self, tmp_path):
        make_key(tmp_path / "key", None)
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        (tmp_path / "key").chmod(0o640)
        with pytest.raises(InvalidConfig, match=r"can be read by others \(mode 0640\)"):
            read_key(tmp_path / "key")

    def test_a_key_is_never_overwritten(self, tmp_path):
        make_key(tmp_path / "key", None)
        before = (tmp_path / "key").read_bytes()
        with pytest.raises(InvalidConfig, match="is never overwritten"):
            make_key(tmp_path / "key", None)
        assert (tmp_path / "key").read_bytes() == before

    def test_a_password_is_asked_for(self, tmp_path, monkeypatch):
        make_key(tmp_path / "key", "correct horse")
        monkeypatch.setattr("getpass.getpass", lambda prompt: "wrong")
        with pytest.raises(InvalidConfig, match="wrong password"):
            read_key(tmp_path / "key")
        monkeypatch.setattr("getpass.getpass", lambda prompt: "correct horse")
        assert not read_key(tmp_path / "key").is_encrypted()

    @pytest.mark.parametrize(
        "content", [b"", b"x\ny\n", b"\xff" * 300, b"untrusted comment: \nRW\n"]
    )
    def test_what_is_no_key_is_said_to_be_none(self, tmp_path, content):
        path = tmp_path / "key"
        path.touch(0o600)
        path.write_bytes(content)
        with pytest.raises(InvalidConfig, match="cannot be used"):
            read_key(path)
        with pytest.raises(InvalidConfig, match="is no minisign public key"):
            Trust.of([content.decode("latin-1")], required=False)

    def test_a_signature_may_not_be_required_without_a_key(self):
        with pytest.raises(InvalidConfig, match="`adaptd signing-key FILE`"):
            Trust.of([], required=True)


class TestCommands:
    def run(self, *arguments, status=0):
        assert adaptd([str(a) for a in arguments]) == status

    def test_make_a_key_sign_and_verify(self, mine, tmp_path, capsys):
        models, key = mine.parents[1], tmp_path / "secret"
        self.run("signing-key", key)
        said = capsys.readouterr().out
        public = (tmp_path / "secret.pub").read_text().splitlines()[1]
        assert f'trusted_keys = ["{public}"]\nrequire_signature = true' in said
        self.run("verify", "mine", "--models", models)
        assert "It is not signed." in capsys.readouterr().out
        self.run("verify", "mine", "--models", models, "--trust", public, status=2)
        assert "mine@1 is not signed" in capsys.readouterr().err
        self.run("sign", "mine", "--signing-key", key, "--models", models)
        assert "is sound, and signed by the key" in capsys.readouterr().out
        assert sorted(os.listdir(mine.parent)) == ["1"]  # nothing is left beside it
        self.run("verify", "mine", "--models", models)
        assert "Its signature was not looked at" in capsys.readouterr().out
        config = tmp_path / "adaptd.toml"
        config.write_text(said[said.index("[signing]") :])
        for keys in (["--trust", public], ["--config", config]):
            self.run("verify", "mine", "--models", models, *keys)
            assert "signed by the trusted key" in capsys.readouterr().out

    def test_counters_of_their_own(self, mine, ann, tmp_path):
        models = mine.parents[1]
        second, fourth = (write_bundle(models, "mine", v) for v in (2, 4))
        assert ann.sign(mine) == 1
        assert ann.sign(second, counter=7) == 7
        assert ann.sign(fourth) == 8
        assert ann.sign(second) == 7  # signed once more, it is no newer
        with pytest.raises(InvalidConfig, match="the counter is 0, expected 1 to"):
            ann.sign(mine, counter=0)

    def test_a_broken_bundle_is_not_signed(self, mine, tmp_path, capsys):
        make_key(tmp_path / "key", None)
        (mine / "weights.bin").write_bytes(b"x")
        self.run(
            "sign", "mine", "--signing-key", tmp_path / "key", "--models", mine.parents[1], status=2
        )
        assert "which the manifest does not list" in capsys.readouterr().err
        assert not (mine / SIGNATURE).exists()


@pytest.fixture
def minisign():
    found = shutil.which("minisign")
    if found is None:
        pytest.skip("needs minisign (Debian: minisign)")
    return found


def test_minisign_itself_agrees(mine, ann, minisign, tmp_path):
    """What we sign it verifies, comment and all; what it signs, with its own key, we do."""
    ann.sign(mine)
    check = [minisign, "-V", "-m", str(mine / MANIFEST), "-P", ann.public]
    said = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and "counter:1\t" in said.stdout
    key, public = tmp_path / "theirs", tmp_path / "theirs.pub"
    make = [minisign, "-G", "-W", "-s", str(key), "-p", str(public)]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    line = public.read_text().splitlines()[1]
    assert key_id(line) in public.read_text()  # the id as it prints it
    comment = Seal("mine", 1, 5, "").line(0)
    sign = [minisign, "-S", "-s", str(key), "-m", str(mine / MANIFEST), "-t", comment]
    subprocess.run(sign, check=True, capture_output=True, timeout=60)
    theirs = Store(mine.parents[1], Trusting(Trust.of([line], required=True)))
    theirs.load("mine")
    assert theirs.seals["mine@1"].counter == 5
    key.chmod(0o600)
    assert not read_key(key).is_encrypted()
