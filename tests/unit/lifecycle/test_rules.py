"""Inspection rules, on documents alone."""

from __future__ import annotations

from typing import Any

import pytest

from koguma.lifecycle.rules.actions import ACTIONS
from koguma.lifecycle.rules.conditions import OPERATORS
from koguma.lifecycle.rules.engine import Rule, apply, reason_not_runnable
from koguma.lifecycle.rules.errors import RefusedByRule, RuleError
from koguma.lifecycle.rules.subject import Subject


def subject() -> Subject:
    return Subject(
        node={
            "uuid": "u",
            "driver": "ipmi",
            "properties": {"capabilities": "boot_mode:uefi"},
            "extra": {},
            "traits": [],
        },
        ports=[{"uuid": "p1", "address": "52:54:00:00:00:01", "extra": {}}],
        inventory={
            "cpu": {"count": 8, "architecture": "x86_64"},
            "disks": [{"name": "/dev/sda", "size": 10}, {"name": "/dev/sdb", "size": 20}],
            "system_vendor": {"manufacturer": "Example Inc."},
            "bmc_password": "s3cret",
        },
        plugin_data={"found": ["a"]},
    )


def op(name: str, args: Any, **more: Any) -> dict[str, Any]:
    return {"op": name, "args": args, **more}


def holds(*conditions: dict[str, Any], sensitive: bool = False) -> bool:
    rule = Rule("r", (op("log", {"msg": "x"}),), conditions, sensitive=sensitive)
    return apply([rule], subject(), "main") == ["r"]


def after(*actions: dict[str, Any], **rule: Any) -> Subject:
    changed = subject()
    apply([Rule("r", actions, **rule)], changed, "main")
    return changed


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        (op("eq", {"values": ["{inventory[cpu][count]}", 8]}), True),
        (op("eq", {"values": ["a", "a", "b"]}), False),
        (op("eq", {"values": [1, "1"], "force_strings": True}), True),
        (op("!eq", {"values": [1, 2]}), True),
        (op("! eq", {"values": [1, 1]}), False),
        (op("lt", [[1, 2, 3]]), True),
        (op("gt", {"values": ["{inventory[cpu][count]}", 10]}), False),
        (op("is-empty", {"value": "{plugin_data[found]}"}), False),
        (op("is-empty", {"value": []}), True),
        (op("is-none", {"value": "None"}), True),
        (op("is-true", {"value": "Yes"}), True),
        (op("is-true", {"value": "1"}), False),
        (op("is-false", {"value": None}), True),
        (op("in-net", {"address": "192.0.2.7", "subnet": "192.0.2.0/24"}), True),
        (op("in-net", {"address": "198.51.100.7", "subnet": "192.0.2.0/24"}), False),
        (op("matches", {"value": "{inventory[system_vendor][manufacturer]}", "regex": "Example.*"}), True),
        (op("matches", {"value": "Example", "regex": "Exam"}), False),
        (op("contains", ["{inventory[system_vendor][manufacturer]}", "(?i)EXAMPLE"]), True),
        (op("matches", {"value": "aa", "regex": "a{2}"}), True),
        (op("one-of", {"value": "{node.driver}", "values": ["ipmi", "redfish"]}), True),
        (op("eq", {"values": ["{item[size]}", 20]}, loop="{inventory[disks]}"), True),
        (op("eq", {"values": ["{item[size]}", 20]}, loop="{inventory[disks]}", multiple="all"), False),
        (op("eq", {"values": ["{item}", "b"]}, loop=["b", "a"], multiple="last"), False),
        (op("eq", {"values": ["{item}", "b"]}, loop=["a", "b"], multiple="first"), True),
    ],
)
def test_a_condition_answers(condition: dict[str, Any], answer: bool) -> None:
    assert holds(condition) is answer


def test_all_conditions_must_hold() -> None:
    assert not holds(op("is-true", {"value": True}), op("is-true", {"value": False}))


def test_actions_change_the_node_its_ports_and_the_plugin_data() -> None:
    changed = after(
        op("set-attribute", {"path": "/properties/cpus", "value": "{inventory[cpu][count]}"}),
        op("set-attribute", {"path": "/resource_class", "value": "big"}),
        op("extend-attribute", {"path": "/extra/tags", "value": "x"}),
        op("extend-attribute", {"path": "/extra/tags", "value": "x", "unique": True}),
        op("set-capability", {"name": "cpu_vt", "value": True}),
        op("unset-capability", {"name": "boot_mode"}),
        op("add-trait", {"name": "CUSTOM_A"}),
        op("set-plugin-data", {"path": "a.b", "value": 1}),
        op("extend-plugin-data", {"path": "found", "value": "b"}),
        op("set-port-attribute", {"port_id": "52:54:00:00:00:01", "path": "/extra/role", "value": "boot"}),
    )
    assert changed.node["properties"] == {"capabilities": "cpu_vt:True", "cpus": "8"}
    assert (changed.node["resource_class"], changed.node["extra"], changed.node["traits"]) == (
        "big",
        {"tags": ["x"]},
        ["CUSTOM_A"],
    )
    assert changed.plugin_data == {"found": ["a", "b"], "a": {"b": 1}}
    assert changed.ports[0]["extra"] == {"role": "boot"}


def test_a_loop_runs_its_action_for_each_item() -> None:
    changed = after(
        op("set-plugin-data", {"path": "disks.{item[name]}", "value": "{item[size]}"}, loop="{inventory[disks]}")
    )
    assert changed.plugin_data["disks"] == {"/dev/sda": "10", "/dev/sdb": "20"}


def test_a_later_action_sees_what_an_earlier_one_did() -> None:
    changed = after(
        op("set-attribute", {"path": "/extra/a", "value": "1"}),
        op("set-attribute", {"path": "/extra/b", "value": "{node.extra[a]}"}),
    )
    assert changed.node["extra"] == {"a": "1", "b": "1"}


def test_rules_run_by_priority_and_only_in_their_phase() -> None:
    rules = [
        Rule("low", (op("set-attribute", {"path": "/extra/last", "value": "low"}),), priority=1),
        Rule("high", (op("set-attribute", {"path": "/extra/last", "value": "high"}),), priority=10),
        Rule("early", (op("fail", {"msg": "never"}),), phase="preprocess"),
    ]
    changed = subject()
    assert apply(rules, changed, "main") == ["high", "low"]
    assert changed.node["extra"] == {"last": "low"}


def test_secrets_are_seen_by_sensitive_rules_only() -> None:
    action = op("set-attribute", {"path": "/extra/p", "value": "{inventory[bmc_password]}"})
    assert after(action).node["extra"] == {"p": "******"}
    assert after(action, sensitive=True).node["extra"] == {"p": "s3cret"}


def test_a_rule_that_fails_says_its_message() -> None:
    with pytest.raises(RefusedByRule, match="not in this rack"):
        after(op("fail", {"msg": "not in this rack"}))


def test_an_error_names_the_rule() -> None:
    with pytest.raises(RuleError, match=r"only a list is extended.*inventory of racks"):
        after(op("extend-attribute", {"path": "/driver", "value": 1}), description="inventory of racks")


@pytest.mark.parametrize(
    "value", ["{node.__class__}", "{inventory.__init__.__globals__}", "{item}", "{inventory[nothing]}", "{", "{0}"]
)
def test_what_cannot_be_filled_in_stays_as_it_is(value: str) -> None:
    assert after(op("set-attribute", {"path": "/extra/v", "value": value})).node["extra"] == {"v": value}


@pytest.mark.parametrize(
    ("operation", "known", "reason"),
    [
        (op("guess", {}), OPERATORS, "op must be one of"),
        (op("eq", {}), OPERATORS, "missing required"),
        (op("is-true", {"value": 1, "more": 2}), OPERATORS, "unexpected argument"),
        (op("set-attribute", ["/driver"]), ACTIONS, "missing required"),
        (op("!fail", {"msg": "x"}), ACTIONS, "op must be one of"),
        (op("!eq", [[1, 2]]), OPERATORS, None),
        (op("one-of", ["a", ["a"]]), OPERATORS, None),
    ],
)
def test_an_operation_that_could_never_run_is_known_beforehand(operation: Any, known: Any, reason: str | None) -> None:
    found = reason_not_runnable(operation, known)
    assert (found is None) if reason is None else (found is not None and reason in found)
