"""The model as a page for people who write policies: every activity, argument and attribute."""

from collections.abc import Iterator, Mapping

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.entities import ACTION_TYPE
from exequatur.policy.schema import ActionDeclaration, EntityDeclaration
from exequatur.policy.types import Attribute, CedarType, RecordType, SetType, attribute_name, attributes_of, written

_HEADER = "| attribute | type | always there | about |"
_RULE = "|---|---|---|---|"


def reference(bundle: PolicyBundle) -> str:
    """Return a Markdown page about what policies can read.

    Args:
        bundle: One with a schema.

    Raises:
        PolicyError: It has no schema.
    """
    model = bundle.model
    if model is None:
        raise PolicyError(
            "Without a schema there is no model to describe. Make one: exequatur policy schema --from MODULE"
        )
    asked = {name: action for name, action in model.actions.items() if action.principals is not None}
    groups = {name: action for name, action in model.actions.items() if action.principals is None}
    lines = ["# What policies can read", "", "Made by `exequatur policy reference` from the schema and the policies."]
    lines += ["", "## Actions", ""]
    for name, action in sorted(asked.items()):
        lines += _action(bundle, name, action)
    if groups:
        lines += ["## Groups of actions", "", "| group | actions in it |", "|---|---|"]
        lines += [
            f"| {_code(_entity(ACTION_TYPE, name))} | {_members(name, model.actions)} |" for name in sorted(groups)
        ]
        lines.append("")
    lines += _circumstances(asked)
    lines += ["## Entities", ""]
    for name, entity in sorted(model.entities.items()):
        lines += _described(name, entity)
    return "\n".join(lines).rstrip() + "\n"


def _action(bundle: PolicyBundle, name: str, action: ActionDeclaration) -> list[str]:
    lines = [f"### {_code(name)}", ""]
    if about := action.annotations.get("doc"):
        lines += [_text(about), ""]
    groups = [_code(_entity(kind, group)) for kind, group in action.groups]
    infos = [bundle.policies[policy_id] for policy_id in bundle.applicable(name)]
    lines += [
        f"* action {_code(_entity(action.type, action.id))}{', in ' + ', '.join(groups) if groups else ''}",
        f"* principal: {_listed(action.principals)}",
        f"* resource: {_listed(action.resources)}",
        f"* policies: {', '.join(f'{_code(info.id)} ({info.effect})' for info in infos) or 'none, so it is denied'}",
        "",
    ]
    arguments = action.args
    if arguments is not None and arguments.attributes:
        lines += ["| argument | type | always there | about |", _RULE, *_rows("context.args", arguments), ""]
    return lines


def _circumstances(actions: Mapping[str, ActionDeclaration]) -> list[str]:
    """What the context has besides the arguments, once for all actions that have the same."""
    having: dict[RecordType, list[str]] = {}
    for name, action in sorted(actions.items()):
        facts = RecordType(tuple(each for each in action.context.attributes if each.name != "args"))
        having.setdefault(facts, []).append(name)
    lines = ["## Circumstances", ""]
    for facts, names in having.items():
        if len(having) > 1:
            lines += [f"For {', '.join(map(_code, names))}:", ""]
        lines += [_HEADER, _RULE, *_rows("context", facts), ""]
    return lines


def _described(name: str, entity: EntityDeclaration) -> list[str]:
    lines = [f"### {_code(name)}", ""]
    if about := entity.annotations.get("doc"):
        lines += [_text(about), ""]
    if entity.parents:
        lines += [f"Can be in {', '.join(map(_code, entity.parents))}.", ""]
    if entity.choices is not None:
        lines += [f"One of {', '.join(_code(_entity(name, each)) for each in entity.choices)}.", ""]
    if entity.attributes.attributes:
        lines += [_HEADER, _RULE, *_rows("", entity.attributes), ""]
    if entity.tags is not None:
        lines += [f"Has tags of the type {_code(written(entity.tags))}.", ""]
    return lines


def _rows(prefix: str, record: RecordType) -> Iterator[str]:
    for path, attribute in attributes_of(record):
        given = "yes" if attribute.required else "no, guard with `has`"
        yield f"| {_code(_dotted(prefix, path))} | {_type(attribute.type)} | {given} | {_about(attribute)} |"


def _dotted(prefix: str, path: tuple[str, ...]) -> str:
    names = [attribute_name(each) for each in path]
    out = prefix
    for name in names:
        out += f"[{name}]" if name.startswith('"') else f".{name}" if out else name
    return out


def _type(kind: CedarType) -> str:
    if isinstance(kind, RecordType):
        return "record"
    return _code(written(kind) if not isinstance(kind, SetType) or len(written(kind)) < 60 else "Set<…>")


def _about(attribute: Attribute) -> str:
    return _text(dict(attribute.annotations).get("doc", ""))


def _members(group: str, actions: Mapping[str, ActionDeclaration]) -> str:
    return ", ".join(_code(name) for name, each in sorted(actions.items()) if (ACTION_TYPE, group) in each.groups)


def _listed(names: tuple[str, ...] | None) -> str:
    return ", ".join(map(_code, names or ())) or "none"


def _entity(kind: str, name: str) -> str:
    shown = name.replace('"', '\\"')
    return f'{kind}::"{shown}"'


def _code(text: str) -> str:
    """Text in a cell as code: what could end the cell or the code is replaced."""
    plain = "".join(char if char.isprintable() else "�" for char in text).replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"


def _text(text: str) -> str:
    """Text in a cell: nothing in it is markup."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>|#" else char for char in plain)
