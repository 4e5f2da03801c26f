"""The workflow side of an activity that no workflow asked for.

It holds a grant of the plugin's authority, signs a request for each activity, and believes a result only with a valid
receipt. What is signed here is what :mod:`exequatur.gate.run` signs inside a workflow; all of it is judged by the gate
itself and by :func:`exequatur.statements.receipts.verify_receipt`.
"""

from __future__ import annotations

from typing import Any

from temporalio.activity import Info
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadConverter

from exequatur.errors import ConfigurationError, StatementError
from exequatur.failures import AuthorizationDenied, AuthorizationFailure, ReceiptRejected
from exequatur.gate.heartbeat import sign_details
from exequatur.gate.issuing import GrantOrder
from exequatur.gate.wire import RECEIPT, activity_header, payloads_digest
from exequatur.identity.acting import OnBehalf
from exequatur.lineage.chain import fold, genesis
from exequatur.plugin import AuthorizationPlugin
from exequatur.statements.jws import Token, parse
from exequatur.statements.models import Receipt, Request, RequestCore
from exequatur.statements.receipts import verify_receipt
from exequatur.statements.requests import core_of
from exequatur.statements.verification import Chain, Credentials, Scope, verify_chain


class AskingRun:
    """A governed run that exists only as its statements.

    Args:
        plugin: Whose gate and keys.
        chain: The verified grant.
        info: Names the run.
    """

    def __init__(self, plugin: AuthorizationPlugin, chain: Chain, info: Info) -> None:
        self._gate = plugin.gate
        self._chain = chain
        self._receivers = Credentials(self._gate.trust)
        self._seq = 0
        self._seen: list[int] = []
        self._head = genesis(
            namespace=chain.namespace,
            workflow_id=info.workflow_id or "",
            workflow_type=info.workflow_type or "",
            original_run_id=info.workflow_run_id or "",
            leaf=chain.leaf.digest,
            seal=None,
        )

    @classmethod
    async def begin(cls, plugin: AuthorizationPlugin, who: OnBehalf, info: Info) -> AskingRun:
        """Have the authority grant a run.

        Raises:
            ConfigurationError: The policies do not let the principal start such a workflow. It is no
                ``AuthorizationDenied``, which a test could take for the activity's.
            AuthorizationUnavailable: It cannot be decided now.
        """
        try:
            text = await plugin._authority.issue_grant(
                GrantOrder(
                    principal=who.principal,
                    namespace=info.namespace,
                    workflow_type=info.workflow_type or "",
                    workflow_id=info.workflow_id or "",
                    task_queue=info.task_queue,
                    input=payloads_digest([]),
                    reuse="once",
                    start_delay=0.0,
                    acting=who.acting,
                    credential=who.credential,
                )
            )
        except AuthorizationDenied as err:
            raise ConfigurationError(
                f"There is no grant for the workflow around the activity: {err.message}. Permit the action "
                "workflow.start, or set workflow_type in the environment's info to a workflow that may be started"
            ) from err
        gate = plugin.gate
        return cls(plugin, verify_chain(text, (), Credentials(gate.trust), gate.trust, aud=None), info)

    def ask(self, info: Info, args: str) -> tuple[Token[Request], Payload]:
        """Sign the request for the next activity.

        Args:
            info: Of the activity.
            args: Digest of its arguments' payloads.

        Returns:
            The request, and the header that it travels in.
        """
        workload, run = self._gate.workload, info.workflow_run_id or ""
        self._seq += 1
        core = RequestCore(
            grant=self._chain.leaf.digest,
            workflow_id=info.workflow_id or "",
            original_run_id=run,
            seq=self._seq,
            activity_type=info.activity_type,
            prev=self._head,
        )
        request = workload.sign(
            Request(
                **core.model_dump(),
                iss=workload.id,
                jti=core.hash(),
                iat=round(self._gate.clock(), 3),
                namespace=info.namespace,
                workflow_type=info.workflow_type or "",
                run_id=run,
                first_run_id=run,
                task_queue=info.task_queue,
                args=args,
                seen=tuple(self._seen),
                local=info.is_local,
            )
        )
        self._seen = []
        self._head = fold(self._head, "request", core.hash())
        return request, activity_header([request.text], [self._chain.grant.text, workload.credential.text])

    def mark(self, details: list[Any], request: Token[Request], info: Info, converter: PayloadConverter) -> list[Any]:
        """Sign heartbeat details as the attempt before did that recorded them."""
        run_id, before = info.workflow_run_id or "", info.attempt - 1
        jti = request.claims.jti
        return list(sign_details(details, self._gate, converter, request=jti, run_id=run_id, attempt=before))

    def believe(self, payload: Payload, request: Token[Request], info: Info) -> Receipt:
        """Verify the receipt of a result.

        Raises:
            ReceiptRejected: There is none, or a wrong one.
        """
        claims = request.claims
        try:
            receipt = verify_receipt(
                payload.metadata.get(RECEIPT),
                core_of(claims),
                payloads_digest([payload]),
                self._receivers,
                Scope(self._chain.site, self._chain.namespace, info.task_queue, info.activity_type),
                local_args=claims.args if info.is_local else None,
            )
        except StatementError as err:
            raise ReceiptRejected(f"The result of {info.activity_type} is not proven: {err}") from err
        self.received(request, receipt.digest)
        return receipt.claims

    def received(self, request: Token[Request], receipt_digest: str) -> None:
        """Fold a receipt into the run's chain."""
        self._seen.append(request.claims.seq)
        self._head = fold(self._head, "receipt", receipt_digest)


def receipt_in(failure: AuthorizationFailure) -> Token[Receipt] | None:
    """The receipt that a failure of the gate carries."""
    details = failure.details[0] if failure.details and isinstance(failure.details[0], dict) else {}
    text = details.get("receipt")
    return parse(text, Receipt) if isinstance(text, str) else None
