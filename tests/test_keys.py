"""Key files, the allow-list, the folder that holds them, and the commands that make them."""

import fcntl
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from runtime.access.allowlist import Client, Role, parse_allowlist, with_client, without_client
from runtime.access.key_folder import KeyFolder, make_pair
from runtime.access.limits import TokenBucket
from runtime.access.watched_list import WatchedList
from runtime.cli import main as adaptd
from runtime.config import load_config
from runtime.errors import InvalidConfig, UnknownName
from runtime.keyfile import Key, client_key, read_key, write_key
from tests.keyed import KeyedDaemon

A, B, C = (z85.encode(bytes([n]) * 32).decode() for n in (1, 2, 3))  # the same in every process
DRIVE = frozenset({Role.DRIVE})


@pytest.fixture
def folder(tmp_path):
    return KeyFolder(tmp_path / "keys")


def test_a_key_file_gives_back_what_was_written(tmp_path):
    key = make_pair("robot", server=A)
    write_key(path := tmp_path / "robot.key", key, "a comment")
    assert read_key(path) == key == client_key(path) and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidConfig, match="exists already: keys are never written over"):
        write_key(path, key, "")
    assert read_key(path) == key
    assert key.secret not in repr(key) and key.public in repr(key)


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    write_key(path := tmp_path / "robot.key", make_pair("robot", A), "")
    path.chmod(0o644)
    with pytest.raises(InvalidConfig, match=r"open to others \(mode 0644\): `chmod 600"):
        read_key(path)
    path.chmod(0o640)  # a group's: as systemd hands credentials on
    assert read_key(path).name == "robot"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "public is not a key of 40 characters"),
        (f'public = "{A}"', "secret is not a key"),
        (f'public = "{A[:39]}"\nsecret = "{A}"', "public is not a key"),
        (f'public = "{A}"\nsecret = "{A}"\nserver = "x"', "server is not a key"),
        (f'public = "{A}"\npublic = "{A}"', "line 2 is not one of"),
        ("[robot]", "line 1 is not one of name, public, secret, server"),
        ('colour = "red"', "line 1 is not one of"),
        ("\0\1\2", "line 1 is not one of"),
    ],
)
def test_what_is_no_key_file_is_refused(tmp_path, text, complaint):
    path = tmp_path / "x.key"
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=complaint):
        read_key(path)


def test_a_key_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(InvalidConfig, match="cannot be read: No such file"):
        read_key(tmp_path / "none.key")
    (path := tmp_path / "binary.key").touch(0o600)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="it is not text"):
        read_key(path)
    with pytest.raises(InvalidConfig, match="'server' names no daemon"):
        client_key(make_pair("server"))
    monkeypatch.setenv("ADAPTD_KEY", str(tmp_path / "none.key"))
    with pytest.raises(InvalidConfig, match=r"none\.key cannot be read"):
        client_key(None)
    assert load_config().keys.folder is None  # the client's variable is none of the daemon's
    monkeypatch.delenv("ADAPTD_KEY")
    assert client_key(None) is None


def test_a_list_is_changed_and_comments_of_others_stay(tmp_path):
    path = tmp_path / "clients.toml"
    text = f'# ours\n\n[a]  # the first\nkeys = ["{A}"]\n# may look on too\nroles = ["drive"]\n\n'
    added = with_client(text, "b", Client(keys=(B,), roles=frozenset(Role), sessions=3))
    assert added.startswith(text)
    clients = parse_allowlist(added.encode(), path)
    assert clients["a"] == Client(keys=(A,), roles=DRIVE)
    assert clients["b"].sessions == 3 and clients["b"].roles == set(Role)
    replaced = with_client(added, "b", Client(keys=(C,), former=(B,), roles=DRIVE))
    assert parse_allowlist(replaced.encode(), path)["b"].owned == {B, C}
    assert without_client(added, "b", clients) == text
    with pytest.raises(UnknownName, match="Did you mean 'b'"):
        without_client(added, "bb", clients)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a", "is not TOML"),
        ("a = 1", "a: Input should be a valid dictionary"),
        ('[a]\nroles = ["drive"]', r"a\.keys: Field required"),
        (f'[a]\nkeys = ["{A}"]', r"a\.roles: Field required"),
        ('[a]\nkeys = []\nroles = ["drive"]', r"a\.keys: Tuple should have at least 1"),
        (f'[a]\nkeys = ["{A}"]\nroles = []', r"a\.roles: Frozenset should have at least 1"),
        (f'[a]\nkeys = ["{A}"]\nroles = ["root"]', "'drive', 'operate' or 'observe'"),
        (f'[a]\nkeys = ["{A}x"]\nroles = ["drive"]', "should match pattern"),
        (f'[a]\nkeys = ["{A}"]\nroles = ["drive"]\nrole = 1', r"a\.role: Extra inputs"),
        (f'[a]\nkeys = ["{A}"]\nroles = ["drive"]\nsessions = 0', "greater than 0"),
        (f'["a b"]\nkeys = ["{A}"]\nroles = ["drive"]', "should match pattern"),
        (f'[a]\nkeys = ["{A}", "{A}"]\nroles = ["drive"]', "in it twice, for a and for a"),
        (
            f'[a]\nkeys = ["{A}"]\nroles = ["drive"]\n[b]\nkeys = ["{B}"]\nformer = ["{A}"]\n'
            f'roles = ["drive"]',
            "in it twice, for a and for b",
        ),
    ],
)
def test_what_is_no_list_is_refused_whole(tmp_path, text, complaint):
    with pytest.raises(InvalidConfig, match=complaint):
        parse_allowlist(text.encode(), tmp_path / "clients.toml")


@given(st.binary(max_size=200))
def test_a_list_of_anything_is_a_list_or_one_sentence(content):
    try:
        parse_allowlist(content, KeyFolder.__module__)  # type: ignore[arg-type]
    except InvalidConfig as error:
        assert str(error)


@pytest.mark.parametrize("where", ["instead of a client", "within one"])
def test_a_secret_in_the_list_is_not_told(tmp_path, where):
    """A key file that was put into it by mistake: the sentence goes to the log and to `status`."""
    secret = "s3cret" + C[6:]
    found = f'keys = ["{A}"]\nroles = ["drive"]\n' if where == "within one" else ""
    text = f'[a]\n{found}name = "a"\npublic = "{A}"\nsecret = "{secret}"\n'
    with pytest.raises(InvalidConfig, match=r"a\.(keys: Field required|name: Extra)") as refused:
        parse_allowlist(text.encode(), tmp_path / "clients.toml")
    assert "s3cret" not in str(refused.value)
    only = f'[a]\nkeys = ["{A}"]\nroles = ["drive"]\nsecret = "{secret}"\n'
    with pytest.raises(InvalidConfig, match=r"a\.secret: Extra inputs") as refused:
        parse_allowlist(only.encode(), tmp_path / "clients.toml")
    assert "s3cret" not in str(refused.value)


def test_a_list_that_anybody_may_write_or_that_is_cut_off_does_not_count(folder):
    folder.make_client("a", DRIVE)
    folder.list.chmod(0o666)
    with pytest.raises(InvalidConfig, match="anybody may write the allow-list"):
        folder.clients()
    folder.list.chmod(0o664)
    assert set(folder.clients()) == {"a"}
    folder.list.write_text(folder.list.read_text() + "#" * (1 << 20))
    with pytest.raises(InvalidConfig, match="has more than 1048576 bytes"):
        folder.clients()


def test_who_could_read_the_list_still_can_when_it_has_changed(folder):
    """The daemon's user, though an operator's files are their own: else the old list counts on."""
    folder.make_client("a", DRIVE)
    folder.list.chmod(0o640)
    before = os.umask(0o077)
    try:
        folder.revoke("a")
    finally:
        os.umask(before)
    assert folder.list.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("change", ["rotate", "retire"])
def test_a_client_that_is_revoked_meanwhile_does_not_come_back(folder, monkeypatch, change):
    """Two operators at once: the second waits for the first, and looks then."""
    folder.make_client("a", DRIVE)
    lock = fcntl.flock
    other = KeyFolder(folder.folder)

    def late(descriptor, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        other.revoke("a")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UnknownName):
        getattr(folder, change)("a")
    assert not folder.clients() and not (folder.folder / "a-2.key").exists()


def test_a_revocation_is_there_after_a_power_cut(folder, monkeypatch):
    folder.make_client("a", DRIVE)
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), sync(fd)))
    folder.revoke("a")
    assert synced == [folder.list.stat().st_ino, folder.folder.stat().st_ino]


@pytest.mark.parametrize("limit", ["messages_per_s", "requests_per_s"])
def test_a_limit_is_a_number(tmp_path, limit):
    """Of an infinite rate a bucket makes NaN, and refuses everything."""
    text = f'[a]\nkeys = ["{A}"]\nroles = ["drive"]\n{limit} = inf\n'
    with pytest.raises(InvalidConfig, match=f"a.{limit}: Input should be a finite number"):
        parse_allowlist(text.encode(), tmp_path / "clients.toml")
    with pytest.raises(InvalidConfig, match="Input should be a finite number"):
        load_config(keys={limit: float("inf")})


def test_a_list_counts_when_it_is_whole(folder):
    """Put in place: at once. Written in place: when it is the same for two looks."""
    folder.make_client("a", DRIVE)
    watched = WatchedList(folder.list)
    assert not watched.look() and set(watched.clients) == {"a"}
    folder.make_client("b", DRIVE)
    assert watched.look() and set(watched.clients) == {"a", "b"} and not watched.look()
    text = folder.list.read_text()
    folder.list.write_text("")  # an editor begins ...
    assert not watched.look() and set(watched.clients) == {"a", "b"}
    folder.list.write_text(text + "# a comment\n")  # ... and is done
    assert not watched.look()
    assert watched.look() and set(watched.clients) == {"a", "b"} and not watched.look()
    folder.list.unlink()
    with pytest.raises(InvalidConfig, match="cannot be read"):
        watched.look()
    assert not watched.look() and set(watched.clients) == {"a", "b"}
    folder.list.write_text(text)
    assert watched.look()


def test_a_client_is_made_added_rotated_retired_and_revoked(folder, tmp_path):
    path = folder.make_client("a", frozenset({Role.OBSERVE, Role.DRIVE}))
    first, server = read_key(path), read_key(folder.folder / "server.key")
    assert first.server == server.public and first.name == "a" and server.server == ""
    folder.add("b", B, DRIVE)
    with pytest.raises(InvalidConfig, match="has a client 'a' already: `adaptd keys rotate a`"):
        folder.make_client("a", DRIVE)
    second = read_key(folder.rotate("a"))
    third = read_key(folder.rotate("a"))
    assert folder.clients()["a"].keys == (first.public, second.public, third.public)
    assert folder.retire("a") == 2 and folder.retire("a") == 0
    left = folder.clients()["a"]
    assert left.keys == (third.public,) and left.former == (first.public, second.public)
    assert left.roles == {Role.OBSERVE, Role.DRIVE}
    folder.revoke("a")
    assert set(folder.clients()) == {"b"}
    with pytest.raises(UnknownName):
        folder.rotate("a")


def test_what_cannot_be_put_on_the_list_leaves_it_and_the_folder_as_they_were(folder):
    folder.make_client("a", DRIVE)
    text, files = folder.list.read_text(), set(folder.folder.iterdir())
    for name, public in (("a b", B), ("../x", B), ("b", "short"), ("b", "x" * 41)):
        with pytest.raises(InvalidConfig):
            folder.add(name, public, DRIVE)
    for name in ("a b", "../x", ""):
        with pytest.raises(InvalidConfig):
            folder.make_client(name, DRIVE)
    assert folder.list.read_text() == text and set(folder.folder.iterdir()) == files


def test_the_commands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        assert adaptd([*words]) == 0
        return capsys.readouterr().out

    said = run("keygen")
    public = re.search(r"public key is (\S+)", said)[1]
    assert public == read_key(tmp_path / "keys/server.key").public
    assert "lets robot drive and observe" in run("keygen", "robot", "--roles", "drive", "observe")
    said = run("keygen", "far", f"--server={public}")
    assert read_key(tmp_path / "far.key").server == public
    made = re.search(r"adaptd keys add far '(\S+)'", said)[1]
    run("keys", "add", "far", made, "--roles", "drive")
    listed = run("keys")
    assert "robot" in listed and "drive observe" in listed and made[:8] in listed
    assert "robot-2.key is another key" in run("keys", "rotate", "robot")
    assert "1 older keys" in run("keys", "retire", "robot")
    assert "let in no more" in run("keys", "revoke", "far")
    assert "far" not in run("keys")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["keygen", "robot"], "say what robot may do: --roles, some of drive, operate, observe"),
        (["keygen", "--server", A], "name the client"),
        (["keygen", "robot", "--server", "short"], "is not a key of 40 characters"),
        (["keys", "revoke"], "name the client: adaptd keys revoke NAME"),
        (["keys", "revoke", "robot"], "cannot be read: No such file"),
        (["keys", "add", "robot"], "adaptd keys add robot PUBLIC_KEY --roles ROLE"),
    ],
)
def test_a_command_that_lacks_something_says_what(tmp_path, capsys, monkeypatch, words, complaint):
    monkeypatch.chdir(tmp_path)
    assert adaptd(words) == 2
    assert complaint in capsys.readouterr().err and not list(tmp_path.glob("*.key"))


def test_a_pair_never_looks_like_an_option():
    assert all(not make_pair("x").public.startswith("-") for _ in range(200))


def test_a_bucket_by_hand():
    """4 a second and 2 at once: two at 0 s, none, one more at 0.25 s; after 10 s two, not forty."""
    bucket, ms = TokenBucket(4.0, 2.0, 0), 1_000_000
    assert [bucket.take(0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(249 * ms), bucket.take(251 * ms), bucket.take(252 * ms)] == [
        False,
        True,
        False,
    ]
    assert [bucket.take(10_000 * ms) for _ in range(3)] == [True, True, False]


@given(st.lists(st.integers(0, 10**9), max_size=200))
def test_no_bucket_gives_more_than_its_rate_and_its_burst(gaps_ns):
    bucket, now_ns, given_out = TokenBucket(50.0, 5.0, 0), 0, 0
    for gap in gaps_ns:
        now_ns += gap
        given_out += bucket.take(now_ns)
    assert given_out <= 5 + 50e-9 * now_ns + 1e-6


def test_the_daemons_own_key_must_be_a_pair(models, keys):
    path = keys.folder / "server.key"
    found = read_key(path)
    path.unlink()
    write_key(path, Key("server", A, found.secret), "")
    with pytest.raises(InvalidConfig, match="its two keys do not belong together"):
        KeyedDaemon(models, keys)
