"""The autoscalers' objects as JSON Schema: what autoscaling/v2 and keda.sh/v1alpha1 allow of what is used here, no field more."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_SECONDS = {"type": "integer", "minimum": 0, "maximum": 3600}


def _thing(required: str = "", **properties: Any) -> dict[str, Any]:
    """An object of these fields; `required`: those that must be there."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


_METADATA = _thing("name", name={"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
                   labels={"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}})  # fmt: skip
_TARGET = _thing("type", type={"enum": ["Utilization", "Value", "AverageValue"]},
                 averageUtilization={"type": "integer", "minimum": 1}, value=_TEXT, averageValue=_TEXT)  # fmt: skip
_RULES = _thing(
    stabilizationWindowSeconds=_SECONDS, selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies={"type": "array", "minItems": 1, "items": _thing("type value periodSeconds", type={"enum": ["Pods", "Percent"]},
              value={"type": "integer", "minimum": 1}, periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800})},
)  # fmt: skip
_REFERENCE = _thing("kind name", apiVersion=_TEXT, kind=_TEXT, name=_TEXT)

HPA = _thing(
    "apiVersion kind metadata spec",
    apiVersion={"const": "autoscaling/v2"},
    kind={"const": "HorizontalPodAutoscaler"},
    metadata=_METADATA,
    spec=_thing(
        "scaleTargetRef maxReplicas",
        scaleTargetRef=_REFERENCE,
        minReplicas={"type": "integer", "minimum": 1},
        maxReplicas={"type": "integer", "minimum": 1},
        metrics={
            "type": "array",
            "items": _thing(
                "type resource", type={"const": "Resource"}, resource=_thing("name target", name=_TEXT, target=_TARGET)
            ),
        },
        behavior=_thing(scaleUp=_RULES, scaleDown=_RULES),
    ),
)

_TRIGGERS = {
    "prometheus": ("serverAddress query threshold", {"serverAddress", "query", "threshold", "activationThreshold", "namespace"}),
    "cpu": ("value", {"value", "containerName"}),
    "redis": ("listName listLength", {"address", "host", "port", "listName", "listLength", "databaseIndex", "enableTLS"}),
}


def _trigger(kind: str) -> dict[str, Any]:
    required, known = _TRIGGERS[kind]
    # Every value of a trigger's metadata is a text: KEDA refuses numbers.
    return _thing("type metadata", type={"const": kind}, name=_TEXT, metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                  metadata=_thing(required, **dict.fromkeys(known, _TEXT)))  # fmt: skip


SCALED_OBJECT = _thing(
    "apiVersion kind metadata spec",
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=_METADATA,
    spec=_thing(
        "scaleTargetRef triggers",
        scaleTargetRef=_thing("name", apiVersion=_TEXT, kind=_TEXT, name=_TEXT, envSourceContainerName=_TEXT),
        pollingInterval={"type": "integer", "minimum": 1},
        cooldownPeriod={"type": "integer", "minimum": 0},
        minReplicaCount={"type": "integer", "minimum": 0},
        maxReplicaCount={"type": "integer", "minimum": 1},
        triggers={"type": "array", "minItems": 1, "items": {"anyOf": [_trigger(kind) for kind in _TRIGGERS]}},
    ),
)

POD_MONITOR = _thing(
    "apiVersion kind metadata spec",
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata=_METADATA,
    spec=_thing(
        "selector podMetricsEndpoints",
        jobLabel=_TEXT,
        selector=_thing("matchLabels", matchLabels={"type": "object", "additionalProperties": _TEXT}),
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": _thing(
                "port",
                port=_TEXT,
                path={"type": "string", "pattern": "^/"},
                interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                authorization=_thing("credentials", type=_TEXT, credentials=_thing("name key", name=_TEXT, key=_TEXT)),
            ),
        },
    ),
)
