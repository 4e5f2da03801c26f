"""This machine: the settings as a whole, and the workers' data converter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.errors import ConfigurationError
from exequatur.settings import Settings

if TYPE_CHECKING:
    from temporalio.converter import DataConverter


def read_settings() -> tuple[Settings, list[Finding]]:
    """The settings of the environment and the file; the defaults where they cannot be used."""
    try:
        settings = Settings.load()
    except ConfigurationError as error:
        return Settings(), [problem("settings", str(error), "Correct it; no worker starts with it.")]
    findings = [fine("settings", f"mode {settings.mode}, trust domain {settings.trust_domain}")]
    if settings.mode == "observe" or settings.observe:
        where = "everywhere" if settings.mode == "observe" else f"by {len(settings.observe)} rules"
        text = f"observes {where}: what is denied runs all the same"
        findings.append(warning("settings", text, 'Set mode = "enforce" when the audit shows no denial that is wrong.'))
    if settings.allow_ungoverned:
        text = f"runs of {', '.join(settings.allow_ungoverned[:5])} act without a grant"
        findings.append(
            warning("settings", text, "Start them through clients with the plugin; then empty allow_ungoverned.")
        )
    return settings, findings


async def examine_converter(converter: DataConverter) -> list[Finding]:
    """Whether a data converter gives back what the gate puts beside a payload: grants, requests and receipts."""
    from temporalio.api.common.v1 import Payload

    codec = converter.payload_codec
    if codec is None:
        text = "the converter has no codec: payloads and statements are readable for the server"
        return [warning("converter", text, "Give a payload codec that encrypts, if that is not meant.")]
    probe = Payload(metadata={"encoding": b"json/plain", "exequatur-probe": bytes(range(256))}, data=b'"probe"')
    try:
        encoded = await codec.encode([probe])
        decoded = await codec.decode(encoded)
    except Exception as error:  # it is the user's code
        text = f"the codec fails: {type(error).__name__}: {error}"
        return [problem("converter", text, "Check its key and its configuration on this machine.")]
    if list(decoded) != [probe]:
        text = "the codec does not give back what it was given, metadata included, so receipts would be lost"
        return [problem("converter", text, "Encode the whole serialized payload, as Temporal's samples do.")]
    hidden = not any(probe.data in each.data for each in encoded)
    if not hidden:
        text = "the codec gives back what it was given, and does not encrypt it"
        return [warning("converter", text, "Give a codec that encrypts, if that is not meant.")]
    return [fine("converter", "the codec gives back what it was given, and hides it")]
