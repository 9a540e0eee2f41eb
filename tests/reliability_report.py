"""Pytest's side of docs/reliability.py: `--write-reliability` writes what marked tests saw."""

from docs import reliability

OPTION = "--write-reliability"


def pytest_addoption(parser):
    parser.addoption(OPTION, action="store_true", help="write docs/reliability.md")


class Report:
    """What the marked tests of a run saw, by test; several cases of one test share a row."""

    def __init__(self):
        self.seen = {}
        self.failed = set()

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rpartition("/")[2].partition("[")[0]
        if not report.passed:
            self.failed.add(name)
        if report.when == "call":
            told = dict(report.user_properties).get("seen", reliability.AS_PROMISED)
            self.seen[name] = told

    def pytest_sessionfinish(self, session):
        missing = {fault.test for fault in reliability.faults()} - (set(self.seen) - self.failed)
        if missing:
            print(f"\n{reliability.PAGE} is not written: not run, or not passed: {sorted(missing)}")
            session.exitstatus = 1
            return
        page = reliability.PAGE.read_text()
        reliability.PAGE.write_text(reliability.updated(page, self.seen))


def pytest_configure(config):
    if config.getoption(OPTION) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Report(), "reliability")
