"""The control plane: answers requests (runtime/requests.py) with JSON replies.

A reply is ``{"version": 1, "ok": true, "result": {...}}`` or ``{"version": 1, "ok": false,
"error": {"code", "sentence", "expected", "found"}}``.

Handlers run on the control thread. What changes sessions, or must see one whole, goes
through `Services.in_loop`, which runs it between two ticks.
"""

import json
from collections.abc import Callable
from typing import Any

import structlog

from runtime import policy_requests, requests, session_requests, status_report
from runtime.messages import VERSION, Code
from runtime.requests import Refusal, parse_request
from runtime.services import Services
from runtime.slab import NoRoom

log = structlog.get_logger()

_Handler = Callable[[Services, Any], dict[str, Any]]
HANDLERS: dict[type, _Handler] = {
    requests.Close: session_requests.close,
    requests.Reset: session_requests.reset,
    requests.Freeze: session_requests.freeze,
    requests.Stop: session_requests.stop,
    requests.Rearm: session_requests.rearm,
    requests.Options: session_requests.set_options,
    requests.Snapshot: session_requests.take_snapshot,
    requests.Restore: session_requests.restore,
    requests.Policies: policy_requests.policies,
    requests.Manifest: policy_requests.manifest,
    requests.Load: policy_requests.load,
    requests.Swap: policy_requests.swap,
    requests.Shadow: policy_requests.shadow,
    requests.Promote: policy_requests.promote,
    requests.Rollback: policy_requests.rollback,
    requests.Release: policy_requests.release,
    requests.Status: status_report.status,
}


class Control:
    """Answers control requests for one daemon."""

    def __init__(self, services: Services):
        self.services = services

    def answer(self, request: bytes, key: str = "") -> bytes:
        """The reply to a request. Never raises for what a sender did.

        Args:
            request: as it came.
            key: of its sender, where senders are asked for one.
        """
        try:
            reply = {"ok": True, "result": self._handle(self._admit(request, key), key)}
        except Refusal as refusal:
            self.services.refused_requests += 1
            reply = {"ok": False, "error": refusal.record}
        except NoRoom as error:
            self.services.refused_requests += 1
            reply = {"ok": False, "error": Refusal(Code.NO_ROOM, str(error)).record}
        except Exception:
            log.exception("request_failure")
            refusal = Refusal(Code.INTERNAL, "the request failed; the daemon's log says why")
            reply = {"ok": False, "error": refusal.record}
        return json.dumps({"version": VERSION, **reply}).encode()

    def _admit(self, request: bytes, key: str) -> Any:
        services = self.services
        if services.access is None:
            return parse_request(request)
        return services.access.gate.admit(key, request, services.in_loop)

    def _handle(self, request: Any, key: str) -> dict[str, Any]:
        if isinstance(request, requests.Shutdown):
            self.services.stop()
            return {}
        if isinstance(request, requests.Open):
            return session_requests.open_session(self.services, request, key)
        return HANDLERS[type(request)](self.services, request)
