"""`adaptd record`, `recover`, `replay` and `convert`."""

import signal
import threading
import time
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from runtime.background import stand_back
from runtime.commandline import THERE, To
from runtime.errors import AdaptdError, InvalidConfig
from runtime.extras import need

Named = tyro.conf.Positional
MIB, GIB = 1 << 20, 1 << 30
READING = ("mcap", "orjson")


class NotExact(AdaptdError):
    """A replay that came out otherwise."""


DRAIN_S = 0.05
"""Between two looks at the tap: taking ticks in bulk costs less than waking up for each."""


def record(
    into: Named[Path] = Path("recordings"),
    session: int | None = None,
    duration_s: float | None = None,
    file_mib: float = 256.0,
    file_s: float = 3600.0,
    keep_gib: float = 10.0,
    spare_gib: float = 1.0,
    checkpoint_s: float = 300.0,
    to: To = THERE,
) -> None:
    """Record every tick of a daemon as MCAP files, until Ctrl-C.

    Args:
        into: folder of recordings; made if need be.
        session: the one to record; all if not given.
        duration_s: stop after so long.
        file_mib: size at which the next file begins.
        file_s: age at which it does.
        keep_gib: most that all recordings in the folder take; the oldest files are deleted.
        spare_gib: what is left free on the disk; while there is less, nothing is written.
        checkpoint_s: time between two checkpoints of a session.
    """
    need("record", "foxglove", *READING)
    from runtime.onlooker import Onlooker
    from runtime.recording.files import RecordingFiles
    from runtime.recording.recorder import Recorder

    if min(file_mib, file_s, keep_gib, checkpoint_s) <= 0 or spare_gib < 0:
        raise InvalidConfig("sizes and times of a recording must be above 0")
    files = RecordingFiles(into, int(file_mib * MIB), file_s, int(keep_gib * GIB),
                           int(spare_gib * GIB))  # fmt: skip
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    console = Console()
    with Onlooker(to.endpoint, session, key=to.key) as onlooker:
        recorder = Recorder(onlooker, files, checkpoint_s)
        stand_back()
        console.print(f"recording {onlooker.endpoint} to {files.current}; Ctrl-C ends it")
        deadline = None if duration_s is None else time.monotonic() + duration_s
        paused = False
        while not stopping.is_set() and (deadline is None or time.monotonic() < deadline):
            recorder.turn()
            stopping.wait(DRAIN_S)
            if recorder.paused != paused:
                paused = recorder.paused
                console.print(_room(into, paused), highlight=False)
        recorder.close()
    console.print(
        f"{recorder.ticks} ticks of {recorder.sessions} sessions, {recorder.missed} missed, "
        f"{recorder.checkpoints} checkpoints; the last file is {files.current}",
        highlight=False,
    )
    if not recorder.ticks and onlooker.trouble:
        console.print(f"nothing came: {onlooker.trouble}", highlight=False)


def _room(folder: Path, paused: bool) -> str:
    return (
        f"no room: {folder} is full, or gone; ticks are counted as missed until there is some"
        if paused
        else f"there is room in {folder} again: recording goes on"
    )


def recover(file: Named[Path], into: Path | None = None) -> None:
    """Make a whole file of one whose writer was killed.

    Args:
        file: of `adaptd record`; it stays as it is.
        into: the new file; FILE-recovered.mcap if not given.
    """
    need("record", *READING)
    from runtime.recording.recovery import recover as repair

    target = into or file.with_name(f"{file.stem}-recovered.mcap")
    found = repair(file, target)
    print(
        f"{target}: {found.ticks} ticks of {found.sessions} sessions over {found.seconds:.1f} s, "
        f"{found.messages} messages, {found.attachments} attachments"
    )
    print(
        f"{found.lost_bytes} bytes at the end are no whole record ({found.reason})"
        if found.reason
        else "nothing was lost: the file was whole"
    )


def replay(
    files: Named[tuple[Path, ...]],
    session: int | None = None,
    policy: str | None = None,
    from_seq: int | None = None,
    models: Path = Path("exported_models"),
    picture: Path | None = None,
    json: bool = False,
) -> None:
    """Run a recorded session once more and compare; exit status 2 where a bit differs.

    Args:
        files: of `adaptd record`, or folders of them.
        session: which, if the recording holds several.
        policy: how another bundle would have acted, instead.
        from_seq: begin at the nearest checkpoint at or before this tick.
        models: folder of bundles.
        picture: with --policy: where to draw the comparison; needs adaptd[sim].
        json: one JSON object instead of sentences.
    """
    need("record", *READING)
    from runtime.logs import be_silent
    from runtime.recording.reading import Recording
    from runtime.recording.report import say_rerun, say_what_if
    from runtime.recording.rerun import rerun
    from runtime.recording.what_if import what_if
    from runtime.store import Store
    from runtime.vetting.admission import Admission

    if picture is not None and policy is None:
        raise InvalidConfig("--picture draws a what-if: name a bundle by --policy")
    be_silent()
    recorded = Recording(files).session(session)
    if policy is None:
        report = rerun(recorded, Store(models, Admission()), from_seq)
        say_rerun(report, recorded, json)
        if not report.is_exact:
            raise NotExact(f"{recorded.where} does not replay to the bit")
        return
    comparison = what_if(recorded, Store(models, Admission()), policy, from_seq)
    say_what_if(comparison, json)
    if picture is not None:
        need("sim", "matplotlib")
        from runtime.recording.picture import draw

        draw(comparison, picture)
        print(f"the picture is {picture}")


def convert(
    files: Named[tuple[Path, ...]],
    to: Literal["lerobot", "parquet"],
    into: Path,
    session: int | None = None,
    task: str = "",
) -> None:
    """Make training data of recordings: a LeRobot dataset (v3.0), or one parquet table.

    Args:
        files: of `adaptd record`, or folders of them.
        to: lerobot, a folder with one episode per recorded episode; or parquet, one row per
            tick with all that the recording says of it.
        into: folder (lerobot) or file (parquet) to make; it must not exist.
        session: which; all of them if not given.
        task: in words, for lerobot; the family of the policy if not given.
    """
    need("convert", *READING, "pyarrow")
    from runtime.recording.lerobot import to_lerobot
    from runtime.recording.reading import Recording
    from runtime.recording.table import to_parquet

    recording = Recording(files)
    found = sorted(number for number, ticks in recording.sessions().items() if ticks)
    chosen = found if session is None else [session]
    sessions = [recording.session(number) for number in chosen]
    print(to_lerobot(sessions, into, task) if to == "lerobot" else to_parquet(sessions, into))
